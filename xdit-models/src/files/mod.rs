//! The files of a pipeline: sources (a folder, the hub, the demo in the binary), configurations and weights.
//!
//! This module knows the formats and names of files. It uses only `error` and `quote`.

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
