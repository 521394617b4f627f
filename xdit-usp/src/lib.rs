#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod axes;
mod error;
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
