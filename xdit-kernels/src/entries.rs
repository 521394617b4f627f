//! A box of entries of a tensor: what a part of an output is.

use crate::MAX_NDIM;

/// First entry of each dim, and number of entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryBox {
    dims: [(usize, usize); MAX_NDIM],
}

impl EntryBox {
    /// All entries of a tensor.
    pub(crate) fn all(shape: &[usize]) -> Self {
        let mut dims = [(0, 1); MAX_NDIM];
        for (dim, &n) in dims.iter_mut().zip(shape) {
            *dim = (0, n);
        }
        Self { dims }
    }

    /// Keeps `len` of the entries of `dim`, from the `start`th on. The caller has checked that they are there.
    pub(crate) fn narrow(&mut self, dim: usize, start: usize, len: usize) {
        self.dims[dim] = (self.dims[dim].0 + start, len);
    }

    pub(crate) fn numel(&self) -> usize {
        self.dims.iter().map(|(_, len)| len).product()
    }

    /// Whether no element is in both.
    pub(crate) fn is_apart(&self, other: &Self) -> bool {
        let mut dims = self.dims.iter().zip(&other.dims);
        self.numel() == 0
            || other.numel() == 0
            || dims.any(|(a, b)| a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0)
    }
}
