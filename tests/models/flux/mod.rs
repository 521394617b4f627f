//! Flux against diffusers, stage by stage; the demo pipeline; the tensors of the real FLUX.1-dev.

mod demo;
mod names;
mod pipeline;
