//! The files of a run and their readers: names, PNGs with their records, tensors.
//!
//! This module uses `report::failure`.

pub(crate) mod dump;
pub(crate) mod files;
pub(crate) mod parameters;
pub(crate) mod partial;
pub(crate) mod picture;
pub(crate) mod places;
pub(crate) mod record;
pub(crate) mod recorded;
pub(crate) mod tensor_file;
