#![doc = include_str!("../README.md")]

pub mod activation;
pub mod attention;
mod conv2d;
mod device;
mod dtype;
pub mod elementwise;
pub mod embedding;
mod error;
mod group_norm;
pub mod layout;
pub mod linear;
pub mod merge;
pub mod norm;
pub mod rope;
#[allow(dead_code, reason = "kernels land one by one")]
mod rows;
mod shape;
#[allow(dead_code, reason = "kernels land one by one")]
#[allow(unused_imports, unused_macros, reason = "kernels land one by one")]
mod simd;
pub mod softmax;
mod storage;
mod tensor;
mod upsample;
mod view;
mod view_mut;

pub use conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding};
pub use device::{Device, Tier};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use group_norm::{group_norm, group_norm_into};
pub use shape::{MAX_NDIM, Shape};
pub use storage::MappedFile;
pub use tensor::{Tensor, TensorMut};
pub use upsample::{upsample_nearest_2x, upsample_nearest_2x_into};
pub use view::View;
pub use view_mut::ViewMut;
