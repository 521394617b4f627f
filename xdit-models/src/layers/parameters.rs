//! How many parameters a model has, as its configuration tells.

use xdit_kernels::DType;

/// Numbers of parameters: matrices, held in the compute dtype, and vectors (biases, norms), held in f32.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parameters {
    matrices: usize,
    vectors: usize,
}

impl Parameters {
    /// A linear layer with bias.
    pub(crate) fn linear(self, outputs: usize, inputs: usize) -> Self {
        Self {
            matrices: self.matrices.saturating_add(outputs.saturating_mul(inputs)),
            vectors: self.vectors.saturating_add(outputs),
        }
    }

    /// A vector by itself, such as the scale of a norm.
    pub(crate) fn vector(mut self, len: usize) -> Self {
        self.vectors += len;
        self
    }

    /// Their bytes where matrices are held in `dtype`.
    pub(crate) fn bytes(self, dtype: DType) -> u64 {
        (self.matrices as u64)
            .saturating_mul(dtype.size() as u64)
            .saturating_add(4 * self.vectors as u64)
    }
}
