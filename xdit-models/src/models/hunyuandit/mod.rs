//! HunyuanDiT: the transformer and its text inputs.

mod blocks;
mod config;
mod configs;
mod costs;
mod embeddings;
mod encoders;
mod forward;
mod held;
mod pipeline;
mod positions;
mod sizes;
#[cfg(test)]
mod tests;
mod transformer;

pub use config::HunyuanConfig;
pub use held::HunyuanContext;
pub use positions::HunyuanPositions;
pub use transformer::{HunyuanInput, HunyuanText, HunyuanTransformer};

pub(crate) use configs::Configs;
