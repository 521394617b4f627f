//! The PTX that ships, executed by the interpreter and compared with the processor's kernels: small odd shapes, strides,
//! every dtype, several schedules, and seeded bugs. `case.rs` launches and compares, `chain.rs` launches several kernels in turn,
//! `support.rs` has tensors and parameters, and one file for each family of kernels tests it.

mod attention;
mod case;
mod chain;
mod conv2d;
mod elementwise;
mod group_norm;
mod layout;
mod merge;
mod norm;
mod pixels;
mod rope;
mod softmax;
mod sums;
mod support;
