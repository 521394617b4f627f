//! The files that a run writes, and those that are read back: names, PNGs with their records, tensors.
//!
//! It uses `report::failure`.

pub(crate) mod dump;
pub(crate) mod files;
pub(crate) mod parameters;
pub(crate) mod partial;
pub(crate) mod picture;
pub(crate) mod places;
pub(crate) mod record;
pub(crate) mod recorded;
pub(crate) mod tensor_file;
