//! Weights for tests.

use xdit_kernels::{Device, Tensor};

use crate::error::Result;
use crate::files::weights::WeightSource;

/// Weights that are a function of their name and position, under names with a prefix.
pub(super) struct TestWeights(pub(super) &'static str);

impl WeightSource for TestWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = name.strip_prefix(self.0).expect("the prefix");
        let seed: usize = name.bytes().map(usize::from).sum();
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|i: usize| ((i * 7 + seed) as f32).sin())
            .collect();
        Ok(Tensor::from_slice(&values, shape, &Device::cpu())?)
    }

    fn contains(&self, name: &str) -> bool {
        name.starts_with(self.0)
    }

    fn contains_prefix(&self, prefix: &str) -> bool {
        prefix == self.0
    }

    fn release(&self, _: &str) {}
}
