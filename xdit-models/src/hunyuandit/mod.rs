//! HunyuanDiT: the transformer and what it reads of prompts.

mod blocks;
mod config;
mod costs;
mod dit;
mod embeddings;
mod passes;
mod transformer;

pub use config::HunyuanConfig;
pub use embeddings::HunyuanPositions;
pub use transformer::{HunyuanInput, HunyuanText, HunyuanTransformer};
