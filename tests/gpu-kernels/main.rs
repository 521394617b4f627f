//! The PTX that ships, executed by the interpreter and compared with the processor's kernels: small odd shapes, strides,
//! every dtype, several schedules, and seeded bugs. `case.rs` launches and compares, `support.rs` has tensors and parameters, and
//! one file for each family of kernels tests it.

mod case;
mod elementwise;
mod layout;
mod norm;
mod rope;
mod softmax;
mod sums;
mod support;
