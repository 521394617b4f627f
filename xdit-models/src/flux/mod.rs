//! Flux.1: transformer and pipeline.

mod blocks;
mod components;
mod config;
mod configs;
mod costs;
mod dit;
mod embeddings;
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
