//! The pipelines: arguments and their checks, plans, memory, loading, encoding, results.
//!
//! A call is resolved and prepared here, on the caller's thread. `ranks` runs it.

pub(crate) mod configurations;
mod count_device;
pub(crate) mod device_memory;
pub(crate) mod embeds;
pub(crate) mod estimate;
pub(crate) mod families;
pub(crate) mod family;
pub(crate) mod finite;
pub(crate) mod fits;
pub(crate) mod handle;
pub(crate) mod image;
#[cfg(feature = "png")]
mod image_file;
pub mod info;
pub(crate) mod memory;
pub(crate) mod memory_limit;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod prepare;
pub(crate) mod rank_plan;
pub(crate) mod request;
pub(crate) mod resolve;
pub(crate) mod run_plan;
pub(crate) mod store;
mod ways_out;
