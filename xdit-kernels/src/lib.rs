#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "ops"),
    allow(dead_code, reason = "some methods of tensors serve only kernels")
)]

#[cfg(feature = "ops")]
pub mod activation;
mod allocator;
#[cfg(feature = "ndarray")]
mod arrays;
#[cfg(feature = "ops")]
pub mod attention;
#[cfg(feature = "ops")]
pub mod conv2d;
mod copies;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(all(feature = "cuda", feature = "ops"))]
mod cuda_rows;
mod device;
mod dispatch;
#[cfg(all(test, feature = "ops"))]
mod dispatch_operands;
#[cfg(all(test, feature = "ops"))]
mod dispatch_tests;
mod dtype;
#[cfg(feature = "ops")]
pub mod elementwise;
#[cfg(feature = "ops")]
pub mod embedding;
mod entries;
mod error;
#[cfg(feature = "ops")]
mod finite;
#[cfg(feature = "cuda")]
mod foreign;
#[cfg(feature = "ops")]
pub mod group_norm;
mod host;
pub mod layout;
#[cfg(feature = "ops")]
pub mod linear;
#[cfg(feature = "ops")]
pub mod merge;
#[cfg(feature = "ops")]
pub mod norm;
#[cfg(feature = "ops")]
mod numbers;
#[cfg(feature = "ops")]
mod parallel;
#[cfg(feature = "ops")]
pub mod pixels;
#[cfg(feature = "ops")]
pub mod rope;
#[cfg(feature = "ops")]
mod rows;
mod shape;
mod shared;
#[cfg(feature = "ops")]
mod simd;
mod sizes;
#[cfg(feature = "ops")]
pub mod softmax;
mod storage;
#[cfg(all(test, feature = "ops"))]
mod storage_tests;
#[cfg(feature = "ops")]
pub mod sums;
mod tensor;
#[cfg(test)]
mod testing;
mod tier;
mod timestamp;
mod unfilled;
#[cfg(feature = "ops")]
pub mod upsample;
mod vector;
mod view;
mod view_mut;
mod weight_form;

pub use allocator::{LastResort, keep_freed_memory};
#[cfg(feature = "cuda")]
pub use cuda::{CudaDeviceInfo, CudaMemoryUse, CudaOptions, CudaOrdinal};
pub use device::{Device, DeviceKind, Event};
pub use dtype::{DType, Element, Float};
pub use error::{Error, Result};
pub use shape::{MAX_NDIM, Shape};
pub use storage::MappedFile;
pub use tensor::{Tensor, TensorMut};
pub use tier::Tier;
pub use timestamp::Timestamp;
pub use unfilled::Unfilled;
pub use vector::reserved;
pub use view::View;
pub use view_mut::ViewMut;
pub use weight_form::WeightForm;
