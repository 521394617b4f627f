#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod axes;
mod error;
mod gathered;
mod heads;
mod plan;
mod ring;
#[cfg(test)]
mod tests;
mod ulysses;
mod usp;

pub use axes::{RING, ULYSSES, plan};
pub use error::{Error, Result};
pub use plan::{SequencePlan, ShardOrder};
pub use ring::Ring;
pub use ulysses::Ulysses;
pub use usp::{Usp, usp};
pub use xdit_comm;
pub use xdit_kernels;
