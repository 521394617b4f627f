//! The number of parameters of a model, from its configuration.

use xdit_kernels::WeightForm;

/// Numbers of parameters: matrices, stored in the compute dtype, and vectors (biases, norms), stored in f32.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ParameterCount {
    matrices: usize,
    vectors: usize,
}

impl ParameterCount {
    /// A linear layer with bias.
    pub(crate) fn linear(self, outputs: usize, inputs: usize) -> Self {
        Self {
            matrices: self.matrices.saturating_add(outputs.saturating_mul(inputs)),
            vectors: self.vectors.saturating_add(outputs),
        }
    }

    /// A linear layer without bias, or a table.
    pub(crate) fn matrix(self, rows: usize, columns: usize) -> Self {
        Self {
            matrices: self.matrices.saturating_add(rows.saturating_mul(columns)),
            ..self
        }
    }

    /// `times` as many.
    pub(crate) fn times(self, times: usize) -> Self {
        Self {
            matrices: self.matrices.saturating_mul(times),
            vectors: self.vectors.saturating_mul(times),
        }
    }

    /// A single vector, such as the scale of a norm.
    pub(crate) fn vector(mut self, len: usize) -> Self {
        self.vectors = self.vectors.saturating_add(len);
        self
    }

    /// Returns their bytes if matrices have this form.
    pub(crate) fn bytes(self, form: WeightForm) -> u64 {
        form.matrix_bytes(self.matrices, 1)
            .saturating_add((self.vectors as u64).saturating_mul(4))
    }
}
