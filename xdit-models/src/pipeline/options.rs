//! How a pipeline is loaded.

use xdit_kernels::{DType, Device};

/// How a pipeline is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// The dtype that weights are held in and models compute in; sums are f32 always.
    pub dtype: DType,
    /// Where it runs.
    pub device: Device,
    /// Threads to compute with; all of the machine's when `None`. Results do not depend on it.
    pub threads: Option<usize>,
    /// Which variant of the weights to read (`fp16` for `….fp16.safetensors`).
    pub variant: Option<String>,
    /// Whether text encoders are read by each call and let go before it denoises, and the other models only after that.
    pub low_memory: bool,
    /// The most memory that a call may plan to use, weights included, in bytes; what the system says is available when `None`.
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
