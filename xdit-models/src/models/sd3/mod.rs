//! Stable Diffusion 3 and 3.5: the transformer and its text inputs.

mod blocks;
mod config;
mod configs;
mod costs;
mod embeddings;
mod encoders;
mod forward;
mod pipeline;
mod prompt;
#[cfg(test)]
mod tests;
mod transformer;

pub use config::Sd3Config;
pub use embeddings::Sd3Positions;
pub use prompt::PromptEmbeds;
pub use transformer::{Sd3Input, Sd3Text, Sd3Transformer};

pub(crate) use configs::Configs;
