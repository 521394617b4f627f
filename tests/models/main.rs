//! Models on one rank, compared with diffusers and transformers: a folder for each family, one for the autoencoder, one for
//! numbers beyond the range of a dtype, and `bf16.rs` for images in bf16. The expected values are in `tests/golden` (see
//! FORMAT.md there). Tests that need several ranks belong in `tests/strategies`, those of one file of a pipeline in
//! `tests/loading`.

mod bf16;
mod finite;
mod flux;
mod hunyuandit;
mod sd3;
mod vae;

use xdit_tests::goldens as golden;
