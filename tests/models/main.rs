//! Models on one rank, compared with what diffusers and transformers compute: a folder for each family, one for the
//! autoencoder, and one for numbers that a dtype cannot hold. What a test compares with lies in `tests/golden`
//! (FORMAT.md there). Tests that need several ranks belong in `tests/strategies`, those of one file of a pipeline in
//! `tests/loading`.

mod finite;
mod flux;
mod hunyuandit;
mod sd3;
mod vae;

use xdit_tests::goldens as golden;
