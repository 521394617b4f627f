#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
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
pub use xdit_comm;
pub use xdit_kernels;
