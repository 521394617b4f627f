#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod blocking;
pub mod conformance;
mod error;
mod group;
mod mesh;
mod shard;
mod stats;
mod sync;
pub mod threads;

pub use backend::{Backend, Call, Op, ReduceOp, Spec, Ticket};
pub use error::{DEADLINE, Error, Loss, Result};
pub use group::{Group, Pending};
pub use mesh::{Axis, Degrees, DeviceMesh};
pub use shard::{Shard, zigzag};
pub use stats::{OpStats, Stats};
