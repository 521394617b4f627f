//! Finds where each row of a strided tensor starts.

use crate::shape::MAX_NDIM;

/// Offsets of the rows of a tensor `[.., c]`. The leading dims are flattened; neighbouring dims are merged where their strides
/// allow it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowOffsets {
    /// Sizes and strides (elements), innermost first.
    dims: [(usize, usize); MAX_NDIM],
    ndim: usize,
}

impl RowOffsets {
    /// The row offsets of a tensor of this shape and these strides.
    pub(super) fn leading(shape: &[usize], strides: &[usize]) -> Self {
        let mut rows = Self {
            dims: [(1, 0); MAX_NDIM],
            ndim: 0,
        };
        for i in (0..shape.len().saturating_sub(1)).rev() {
            let (size, stride) = (shape[i], strides[i]);
            if size == 1 {
                continue;
            }
            match rows.ndim.checked_sub(1).map(|last| &mut rows.dims[last]) {
                Some(inner) if inner.0 * inner.1 == stride => inner.0 *= size,
                _ => {
                    rows.dims[rows.ndim] = (size, stride);
                    rows.ndim += 1;
                }
            }
        }
        rows
    }

    /// Elements from one row to the next, if the distance is the same for all rows.
    #[inline]
    pub(super) fn stride(&self) -> Option<usize> {
        (self.ndim <= 1).then_some(self.dims[0].1)
    }

    /// Offset of a row's first element, in elements.
    #[inline]
    pub(super) fn offset(&self, row: usize) -> usize {
        if let Some(stride) = self.stride() {
            return row * stride;
        }
        let (mut rest, mut offset) = (row, 0);
        for &(size, stride) in &self.dims[..self.ndim] {
            offset += rest % size * stride;
            rest /= size;
        }
        offset
    }
}
