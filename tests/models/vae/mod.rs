//! The autoencoder that all families share: its stages against diffusers, and Winograd's convolution against f64.

mod stages;
mod winograd;
