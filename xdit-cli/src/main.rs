//! The binary `xdit-cli`.
#![forbid(unsafe_code)]

fn main() {}
