//! Weights that are all zero, to check names and shapes. They take no memory until they are written.

use std::sync::{Mutex, PoisonError};

use xdit_kernels::{DType, Device, Tensor};

use super::WeightSource;
use crate::error::Result;

/// Answers every request with zeros and records it.
///
/// All tensors share one piece of memory that the system fills lazily, so a check of a model of 24 GB does not need 24 GB.
/// Every tensor and every prefix exists.
#[derive(Debug)]
pub struct ZeroWeights {
    dtype: DType,
    state: Mutex<ZeroState>,
}

#[derive(Debug, Default)]
struct ZeroState {
    zeros: Option<Tensor>,
    asked: Vec<(String, Vec<usize>)>,
}

impl ZeroWeights {
    /// Creates zeros of `dtype`.
    #[must_use]
    pub fn new(dtype: DType) -> Self {
        Self {
            dtype,
            state: Mutex::default(),
        }
    }

    /// Returns the requested names and shapes, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, Vec<usize>)> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .asked
            .clone()
    }
}

impl WeightSource for ZeroWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push((name.to_owned(), shape.to_vec()));
        let count = shape.iter().product();
        let zeros = match state.zeros.take() {
            Some(zeros) if zeros.numel() >= count => zeros,
            _ => Tensor::zeros([count], self.dtype, &Device::cpu())?,
        };
        let tensor = zeros.narrow(0, 0, count)?.reshape(shape)?;
        state.zeros = Some(zeros);
        Ok(tensor)
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }

    fn contains_prefix(&self, _prefix: &str) -> bool {
        true
    }

    fn release(&self, _name: &str) {}
}
