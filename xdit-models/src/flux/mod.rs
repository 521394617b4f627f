//! Flux.1: transformer and pipeline.

mod blocks;
mod components;
mod config;
mod configs;
mod embeddings;
mod latents;
mod pipeline;
mod plan;
mod replica;
mod transformer;

pub use config::FluxConfig;
pub use embeddings::RotaryTables;
pub use pipeline::FluxPipeline;
pub use transformer::{FluxInput, FluxText, FluxTransformer};
