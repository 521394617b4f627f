//! Calls over ranks: the rows and blocks of each rank, the wrappers of attention, the denoising steps, decoding in bands.
//!
//! Only `compose.rs` names every strategy. This wing runs models through the traits of `models::dit`.

pub(crate) mod attended;
pub mod axes;
pub(crate) mod checkpoint;
pub(crate) mod compose;
pub(crate) mod degrees;
pub(crate) mod gathered;
pub(crate) mod idle;
pub(crate) mod job;
pub(crate) mod keeping;
pub(crate) mod mesh_order;
pub(crate) mod parallel;
pub(crate) mod partition;
pub(crate) mod pools;
pub(crate) mod rank_devices;
pub(crate) mod rank_observer;
pub(crate) mod replica;
pub(crate) mod run_job;
pub(crate) mod run_part;
pub(crate) mod run_rank;
pub(crate) mod sampling;
pub(crate) mod shared_steps;
pub(crate) mod stage;
