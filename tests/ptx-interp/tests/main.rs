//! Kernels and instructions on the interpreter.

mod cases;
mod floats;
mod integers;
mod kernels;
mod lanes;
mod sources;
mod support;
