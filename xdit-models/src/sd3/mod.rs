//! Stable Diffusion 3 and 3.5: the transformer and what it reads of prompts.

mod blocks;
mod config;
#[allow(dead_code, reason = "read by the pipeline, which is not there yet")]
mod costs;
mod embeddings;
#[allow(dead_code, reason = "read by the pipeline, which is not there yet")]
mod latents;
#[allow(dead_code, reason = "read by the pipeline, which is not there yet")]
mod passes;
mod prompt;
#[cfg(test)]
mod tests;
mod transformer;

pub use config::Sd3Config;
pub use embeddings::Sd3Positions;
pub use prompt::PromptEmbeds;
pub use transformer::{Sd3Input, Sd3Text, Sd3Transformer};
