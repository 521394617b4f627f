//! Flux.1: the transformer and the pipeline.

mod blocks;
mod config;
mod configs;
mod costs;
mod demo;
mod embeddings;
mod encoders;
mod forward;
mod latents;
mod pipeline;
mod transformer;

pub use config::FluxConfig;
pub(crate) use configs::Configs;
#[cfg(test)]
pub(crate) use configs::RULES;
pub use embeddings::RotaryTables;
pub use transformer::{FluxInput, FluxText, FluxTransformer};
