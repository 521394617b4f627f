#![doc = include_str!("../README.md")]

pub mod activation;
mod device;
mod dtype;
mod error;
pub mod layout;
#[allow(dead_code, reason = "kernels land one by one")]
mod rows;
mod shape;
#[allow(dead_code, reason = "kernels land one by one")]
#[allow(unused_imports, unused_macros, reason = "kernels land one by one")]
mod simd;
mod storage;
mod tensor;
mod view;
mod view_mut;

pub use device::{Device, Tier};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use shape::{MAX_NDIM, Shape};
pub use storage::MappedFile;
pub use tensor::{Tensor, TensorMut};
pub use view::View;
pub use view_mut::ViewMut;
