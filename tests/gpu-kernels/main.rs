//! The PTX that ships, executed by the interpreter and compared with the processor's kernels: small odd shapes, strides,
//! every dtype, and seeded bugs. `case.rs` launches and compares, `chain.rs` launches several kernels in turn, `seed.rs` seeds
//! bugs, `support.rs` has tensors and parameters, and one file for each family of kernels tests it. `native.rs` compares the native
//! versions of the virtual GPU.
//!
//! Schedules are three orders of warps; with asynchronous copies six, as these complete early or late. Every kernel runs under
//! all of them. Attention and convolution of f32, whose runs take long, do so for some shapes, which have each phase of the
//! pipeline; the other shapes change addresses only, and run under one or two.

mod attention;
mod batch;
mod case;
mod chain;
mod conv2d;
mod elementwise;
mod group_norm;
mod layout;
mod merge;
mod native;
mod norm;
mod pixels;
mod rope;
mod seed;
mod softmax;
mod sums;
mod support;
