//! Random numbers for benchmarks: values do not change the work, but zeros would.

use xdit_kernels::{DType, Device, Result, Tensor, elementwise::scale};
use xdit_models::weights::WeightSource;

/// Uniform in −1..1, from a fixed stream.
///
/// # Errors
/// If there is no memory.
pub fn random(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let mut state = 0x9e37_79b9_u32;
    let data: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / 2_147_483_648.0 - 1.0
        })
        .collect();
    Tensor::from_slice(&data, shape, device)?.to_dtype(dtype)
}

/// Small random numbers for every name: one stream, read from the start by each tensor.
#[derive(Debug)]
pub struct RandomWeights(Tensor);

impl RandomWeights {
    /// Weights for tensors of at most `largest` numbers.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(largest: usize, dtype: DType, device: &Device) -> Result<Self> {
        scale(&random(&[largest], dtype, device)?, 0.02).map(Self)
    }
}

impl WeightSource for RandomWeights {
    fn tensor(&self, _: &str, shape: &[usize]) -> xdit_models::Result<Tensor> {
        let count = shape.iter().product();
        Ok(self.0.narrow(0, 0, count)?.reshape(shape)?)
    }

    fn contains(&self, _: &str) -> bool {
        true
    }

    fn contains_prefix(&self, _: &str) -> bool {
        true
    }

    fn release(&self, _: &str) {}
}
