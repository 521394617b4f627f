//! How a layer holds its weights, and what they take.

use crate::DType;

/// The form in which a layer holds a weight matrix. It alone says how many bytes the matrix takes: plans, checks of memory and
/// loading ask it.
///
/// Forms whose elements share scales (groups of int8, blocks of GGUF) will stand beside these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightForm {
    /// Each element by itself in this dtype.
    Dense(DType),
    /// 3×3 kernels transformed for Winograd's F(4×4, 3×3): 36 f32 for 9 elements.
    Winograd,
}

impl WeightForm {
    /// Bytes of a matrix of `rows` × `columns` in this form, without padding to whole panels; a convolution's has a row for each
    /// output channel. `u64::MAX` where they do not fit.
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
