//! The forms in which layers hold their weights, and how many bytes each takes.

use crate::DType;
use std::fmt;

/// The form in which a layer holds a weight matrix. The form alone decides how many bytes the matrix takes: plans, memory
/// checks and loading all use [`matrix_bytes`](Self::matrix_bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightForm {
    /// One element of this dtype for each weight.
    Dense(DType),
    /// 3×3 kernels transformed for Winograd's F(4×4, 3×3): 36 f32 for 9 weights.
    Winograd,
}

impl WeightForm {
    /// Bytes of a matrix of `rows` × `columns` in this form, without the padding that a device adds; `u64::MAX` where the number
    /// does not fit. The matrix of a convolution has a row for each output channel.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{DType, WeightForm};
    /// assert_eq!(WeightForm::Dense(DType::BF16).matrix_bytes(64, 128), 2 * 64 * 128);
    /// assert_eq!(WeightForm::Winograd.matrix_bytes(1, 9), 36 * 4);
    /// ```
    pub fn matrix_bytes(self, rows: usize, columns: usize) -> u64 {
        let elements = (rows as u64).saturating_mul(columns as u64);
        elements.saturating_mul(match self {
            Self::Dense(dtype) => dtype.size() as u64,
            Self::Winograd => 36 * 4 / 9,
        })
    }
}

impl fmt::Display for WeightForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(dtype) => write!(f, "{dtype}"),
            Self::Winograd => f.write_str("Winograd"),
        }
    }
}
