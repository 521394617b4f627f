//! The diffusion transformers: a folder for each family, and the interface that they implement (`dit.rs`).
//!
//! Everything here runs on one device: no rank appears in it. It uses `files`, `text`, `schedulers`, `layers` and `vae`, and the
//! traits by which `pipeline` runs a family.

pub(crate) mod dit;
pub mod flux;
pub mod hunyuandit;
pub mod sd3;
pub(crate) mod skips;
