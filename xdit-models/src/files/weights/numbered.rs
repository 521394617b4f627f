//! Weights for tests of any model, computed from their names.

use std::sync::Mutex;

use xdit_kernels::{Device, Tensor};

use super::WeightSource;
use crate::error::Result;

/// Numbers from -0.5 to 0.5 that depend on the name of the tensor and the position in it.
#[derive(Debug, Default)]
pub(crate) struct NumberedWeights {
    asked: Mutex<Vec<String>>,
}

impl NumberedWeights {
    /// The requested names, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn numbers(name: &str, count: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(next).collect()
}

/// Returns the tensor of this name.
pub(crate) fn tensor(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_slice(
        &numbers(name, shape.iter().product()),
        shape,
        &Device::cpu(),
    )
    .unwrap()
}

impl WeightSource for NumberedWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.asked.lock().unwrap().push(name.to_owned());
        Ok(tensor(name, shape))
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }

    fn contains_prefix(&self, _prefix: &str) -> bool {
        true
    }

    fn release(&self, _name: &str) {}
}
