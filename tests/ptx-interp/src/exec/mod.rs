//! Executes kernels: blocks, warps, and instructions by family. Each file but `block.rs` and `warp.rs` adds methods to `Block`.

mod atomics;
mod barriers;
mod block;
mod bulk;
mod collectives;
mod convergence;
mod copies;
mod launch;
mod loads;
mod matrices;
mod mbarriers;
mod products;
mod scalars;
mod schedule;
mod step;
mod tiles;
mod values;
mod warp;
mod wgmma;

pub use launch::{Launch, launch};
