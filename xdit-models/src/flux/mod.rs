//! Flux.1: transformer and pipeline.

mod blocks;
mod components;
mod config;
mod configs;
mod costs;
mod embeddings;
mod latents;
mod passes;
mod pipeline;
mod plan;
mod replica;
mod sampling;
mod spread;
mod stage;
mod transformer;
mod watch;

pub use config::FluxConfig;
pub use embeddings::RotaryTables;
pub use pipeline::FluxPipeline;
pub use transformer::{FluxInput, FluxText, FluxTransformer};
