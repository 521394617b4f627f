//! The commands, one file each (`generate` has two more, for many prompts and for writing files).
//!
//! A command reads its flags, runs a pipeline through `run`, and writes through `output` and `report`.

pub(crate) mod batch;
mod batch_report;
pub(crate) mod completions;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod download;
pub(crate) mod generate;
pub(crate) mod info;
pub(crate) mod launch;
pub(crate) mod man;
pub(crate) mod picture;
pub(crate) mod plan;
pub(crate) mod replay;
mod written;
