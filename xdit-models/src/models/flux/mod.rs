//! Flux.1: transformer and pipeline.

mod blocks;
mod config;
mod configs;
mod costs;
mod dit;
mod embeddings;
mod encoders;
mod forward;
mod latents;
mod pipeline;
mod transformer;

pub use config::FluxConfig;
pub(crate) use configs::Configs;
pub use embeddings::RotaryTables;
#[cfg(test)]
pub(crate) use pipeline::RULES;
pub use transformer::{FluxInput, FluxText, FluxTransformer};
