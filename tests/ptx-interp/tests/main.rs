//! Kernels and instructions on the interpreter.

mod attention;
mod bugs;
mod cases;
mod floats;
mod integers;
mod kernels;
mod lanes;
mod matrices;
mod memory;
mod mutations;
mod properties;
mod refusals;
mod sources;
mod support;
mod synchronisation;
