#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod decode;
mod exec;
mod ir;
mod memory;
mod module;
mod operands;
mod options;
mod parse;
mod report;
mod scalar;
mod tensor_map;
mod types;

pub use exec::{Launch, launch};
pub use memory::{DeviceMemory, FlatMemory, MemoryFault};
pub use module::{Entry, Module, Param, Variable};
pub use options::{Class, Completion, Options, Stats, WarpOrder};
pub use parse::ParseError;
pub use report::{Finding, Place, Report};
pub use tensor_map::{Swizzle, TensorMap, TensorMapError};
