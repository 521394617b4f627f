#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod activation;
mod allocator;
#[cfg(feature = "ndarray")]
mod arrays;
pub mod attention;
pub mod conv2d;
mod copies;
mod device;
mod dispatch;
#[cfg(test)]
mod dispatch_tests;
mod dtype;
pub mod elementwise;
pub mod embedding;
mod error;
mod finite;
pub mod group_norm;
mod host;
pub mod layout;
pub mod linear;
pub mod merge;
pub mod norm;
mod numbers;
pub mod rope;
mod rows;
mod shape;
mod simd;
mod sizes;
pub mod softmax;
mod storage;
#[cfg(test)]
mod storage_tests;
pub mod sums;
mod tensor;
#[cfg(test)]
mod testing;
mod tier;
mod unfilled;
pub mod upsample;
mod vector;
mod view;
mod view_mut;
mod weight_form;

pub use allocator::{LastResort, keep_freed_memory};
pub use device::{Device, DeviceKind, Event};
pub use dtype::{DType, Element, Float};
pub use error::{Error, Result};
pub use shape::{MAX_NDIM, Shape};
pub use storage::MappedFile;
pub use tensor::{Tensor, TensorMut};
pub use tier::Tier;
pub use unfilled::Unfilled;
pub use vector::reserved;
pub use view::View;
pub use view_mut::ViewMut;
pub use weight_form::WeightForm;
