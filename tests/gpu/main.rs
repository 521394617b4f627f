//! What must hold on a GPU: every kernel against the processor's, the goldens of every family, and ranks that share one GPU.
//! All of it is ignored unless it is asked for, and fails where there is no GPU:
//!
//! ```text
//! cargo test -p xdit-tests --test gpu -- --ignored
//! ```
//!
//! `ci/vgpu.sh` runs the same tests on the virtual GPU, with smaller operands (`support::is_small`). `ci/gpu.sh` puts them in
//! a folder for a machine that has neither Rust nor this source. Tests of what only `xdit-kernels` sees of a GPU are in that
//! crate.

mod attention;
mod complete;
mod conv2d;
mod copies;
mod elements;
mod goldens;
mod group_norm;
mod heads;
mod linear;
mod memory;
mod rows;
mod strategies;
mod sums;
mod support;
