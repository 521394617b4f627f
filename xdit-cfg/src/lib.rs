#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod branch;
mod error;
mod guidance;
mod plan;
mod rescale;
#[cfg(test)]
mod tests;

pub use branch::Branch;
pub use error::{Error, Result};
pub use guidance::Guidance;
pub use plan::{GuidancePlan, Scales, SkipLayers};
pub use rescale::{Guided, RescaleSums};
