//! The options of loading a pipeline.

use xdit_kernels::{DType, Device};

/// The options of loading a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// The dtype of weights and of computation. Sums are always f32.
    pub dtype: DType,
    /// The device of weights and of computation.
    pub device: Device,
    /// The number of compute threads. `None` for one per core. Results do not depend on it.
    pub threads: Option<usize>,
    /// The variant of the weights (`fp16` for `….fp16.safetensors`).
    pub variant: Option<String>,
    /// Whether each call reads the text encoders and drops them before it reads the other models and denoises.
    pub low_memory: bool,
    /// The most memory that a call may use, in bytes, weights included, of the process and of its GPU each. `None` for the available
    /// memory of both.
    pub memory_limit: Option<u64>,
}

impl Default for LoadOptions {
    /// f32 on all cores of the processor.
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            device: Device::cpu(),
            threads: None,
            variant: None,
            low_memory: false,
            memory_limit: None,
        }
    }
}
