//! The files of a pipeline: where they come from (a folder, the hub, the demo in the binary), configurations, weights.
//!
//! This wing knows formats and names of files. It uses `error` and `quote`, and no other wing.

pub(crate) mod config;
#[cfg(feature = "demo")]
mod demo;
mod disk;
pub(crate) mod file_bytes;
mod folder;
mod hints;
#[cfg(feature = "hub")]
pub mod hub;
pub(crate) mod inner_path;
pub(crate) mod model_index;
pub(crate) mod snapshots;
pub(crate) mod source;
pub mod weights;
