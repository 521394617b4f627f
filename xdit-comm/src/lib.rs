#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)] // allowed in the module `ffi` of a transport

mod axis;
mod backend;
mod blocking;
mod call;
pub mod conformance;
mod control;
mod error;
mod group;
mod mesh;
mod pending;
pub mod processes;
mod shard;
mod stats;
pub mod strict;
mod sync;
pub mod threads;

pub use axis::Axis;
pub use backend::{Backend, Ticket};
pub use call::{Call, Op, ReduceOp, Spec};
pub use control::Control;
pub use error::{DEADLINE, Error, Loss, Result};
pub use group::Group;
pub use mesh::{DeviceMesh, MeshShape};
pub use pending::Pending;
pub use shard::{Shard, zigzag};
pub use stats::{OpStats, Stats};
pub use xdit_kernels;
