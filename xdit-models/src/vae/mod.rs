//! The variational autoencoder's configuration.

mod config;

pub use config::VaeConfig;
