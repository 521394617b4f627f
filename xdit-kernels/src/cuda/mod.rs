//! NVIDIA GPUs: the driver, queues, memory, and launches of kernels. Building needs nothing of CUDA.
//!
//! Files here use no tensors: tensors and devices are made of them. The kernels of an operation lie in its own folder
//! (`norm/norm.cu`, `norm/cuda.rs`); they launch through [`CudaQueue::launch`].

mod blas_library;
mod blocks;
#[cfg(test)]
mod blocks_tests;
mod buffer;
mod context;
mod driver;
#[cfg(all(test, target_os = "linux"))]
mod driver_tests;
mod error;
mod info;
mod launch;
mod module;
mod options;
mod pinned;
mod pool;
mod products;
#[cfg(all(test, target_os = "linux"))]
mod products_tests;
mod queue;
mod relay;
mod staging;
mod stream;
mod tensor_map;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use buffer::CudaBuffer;
pub use context::CudaOrdinal;
pub use info::CudaDeviceInfo;
#[allow(unused_imports, reason = "kernels launch, with the feature ops")]
pub(crate) use launch::{Args, KernelParam, LaunchShape, MOST_BLOCKS_Y};
#[allow(unused_imports, reason = "as above")]
pub(crate) use module::PtxModule;
pub use options::CudaOptions;
pub(crate) use pinned::PIECE as UPLOAD_PIECE;
pub use pool::CudaMemoryUse;
#[allow(
    unused_imports,
    reason = "linear layers use them, with the feature ops"
)]
pub(crate) use products::{FusedActivation, ProductOperands, ProductShape};
pub(crate) use queue::CudaQueue;
pub(crate) use stream::CudaEvent;
#[allow(
    unused_imports,
    reason = "attention copies boxes, with the feature ops"
)]
pub(crate) use tensor_map::Boxes;
#[allow(unused_imports, reason = "row kernels are a feature of their own")]
pub(crate) use walk::DeviceWalk;
