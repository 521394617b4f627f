//! Flux.1: transformer and pipeline.

mod blocks;
mod config;
mod configs;
mod costs;
mod dit;
mod embeddings;
mod encoders;
mod latents;
mod passes;
mod pipeline;
mod transformer;

pub use config::FluxConfig;
pub use embeddings::RotaryTables;
pub use pipeline::FluxPipeline;
#[cfg(test)]
pub(crate) use pipeline::RULES;
pub use transformer::{FluxInput, FluxText, FluxTransformer};
