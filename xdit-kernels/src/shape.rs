use std::{fmt, ops::Deref};

/// Most dims a tensor can have.
pub const MAX_NDIM: usize = 6;

/// Sizes (or strides) of a tensor's dims, outermost first; at most [`MAX_NDIM`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; MAX_NDIM],
    ndim: u8,
}

impl Shape {
    /// The shape with these dims.
    ///
    /// # Panics
    /// If there are more than [`MAX_NDIM`]: a bug in the calling code, not bad input.
    pub fn new(dims: &[usize]) -> Self {
        assert!(
            dims.len() <= MAX_NDIM,
            "a tensor has at most {MAX_NDIM} dims, not {}",
            dims.len()
        );
        let mut all = [0; MAX_NDIM];
        all[..dims.len()].copy_from_slice(dims);
        Self {
            dims: all,
            ndim: dims.len() as u8,
        }
    }

    /// Number of elements, or `None` if it does not fit a `usize`.
    pub fn checked_numel(&self) -> Option<usize> {
        self.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Number of elements; `usize::MAX` if it does not fit a `usize`.
    pub fn numel(&self) -> usize {
        self.checked_numel().unwrap_or(usize::MAX)
    }

    /// Row-major strides, in elements; `usize::MAX` for those that do not fit a `usize`.
    pub fn contiguous_strides(&self) -> Self {
        let mut strides = *self;
        let mut step = 1usize;
        for i in (0..self.len()).rev() {
            strides.dims[i] = step;
            step = step.saturating_mul(self.dims[i]);
        }
        strides
    }

    /// The shape with these dims, or `None` if there are more than [`MAX_NDIM`].
    pub(crate) fn from_iter(dims: impl IntoIterator<Item = usize>) -> Option<Self> {
        let mut shape = Self::new(&[]);
        for dim in dims {
            *shape.dims.get_mut(usize::from(shape.ndim))? = dim;
            shape.ndim += 1;
        }
        Some(shape)
    }

    pub(crate) fn as_mut(&mut self) -> &mut [usize] {
        &mut self.dims[..usize::from(self.ndim)]
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..usize::from(self.ndim)]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self::new(dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self::new(&dims)
    }
}

impl<const N: usize> From<&[usize; N]> for Shape {
    fn from(dims: &[usize; N]) -> Self {
        Self::new(dims)
    }
}
