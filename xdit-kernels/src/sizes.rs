//! The one place where sizes are checked: shape, strides and dtype of a tensor, proven to fit memory.

use crate::{DType, Error, Result, Shape, shape::MAX_NDIM};
use std::fmt;

/// The most elements that a view stands for if it repeats elements of its memory (256 GiB of f32): a call that only reads
/// would otherwise work for years on a few bytes.
pub(crate) const MAX_REPEATED: usize = 1 << 36;

/// Shape, strides and dtype of a tensor. There is no other way to make one than by checking it, so kernels, which take sizes
/// from nowhere else, may rely on this:
///
/// 1. The product of all dims, each counted as 1 at least, is at most `isize::MAX` bytes. So no product of some dims wraps,
///    in an empty tensor neither.
/// 2. The element with the largest index lies within `isize::MAX` bytes of the first.
/// 3. A dim of one entry (or none), which is never stepped along, has the stride of row-major order, and so has every dim of
///    an empty tensor. With 2, stride · dim does not wrap for any dim.
/// 4. A tensor that repeats elements has no more than [`MAX_REPEATED`], or was made of one that met this.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    shape: Shape,
    strides: Shape,
    numel: usize,
    dtype: DType,
}

impl Layout {
    /// Row-major; `None` if it is larger than memory can be.
    pub(crate) fn contiguous(shape: Shape, dtype: DType) -> Option<Self> {
        let numel = bounded_numel(&shape, dtype)?;
        let layout = Self {
            shape,
            strides: shape,
            numel,
            dtype,
        };
        Some(layout.row_major())
    }

    /// As [`contiguous`](Self::contiguous), for memory that `op` is about to ask for.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn of_output(op: &'static str, shape: Shape, dtype: DType) -> Result<Self> {
        Self::contiguous(shape, dtype).ok_or(Error::OutOfMemory {
            op,
            bytes: usize::MAX,
        })
    }

    /// With strides in elements; `None` if it is larger than memory can be, repeats elements too often, or has not as many
    /// strides as dims.
    pub(crate) fn strided(shape: Shape, strides: Shape, dtype: DType) -> Option<Self> {
        let numel = bounded_numel(&shape, dtype)?;
        if strides.len() != shape.len() {
            return None;
        }
        let layout = Self {
            shape,
            strides,
            numel,
            dtype,
        };
        if numel == 0 {
            return Some(layout.row_major());
        }
        let steps = shape.iter().zip(strides.iter());
        let last = steps
            .filter(|&(&n, _)| n > 1)
            .try_fold(0usize, |last, (&n, &stride)| {
                last.checked_add((n - 1).checked_mul(stride)?)
            })?;
        let extent = last.checked_add(1)?;
        fits(extent, dtype)
            .filter(|_| numel <= extent.max(MAX_REPEATED))
            .map(|_| layout.settled())
    }

    /// Strides of row-major order. Products are bounded by (1).
    fn row_major(mut self) -> Self {
        let mut step = 1;
        for d in (0..self.shape.len()).rev() {
            self.strides.as_mut()[d] = step;
            step *= self.shape[d].max(1);
        }
        self
    }

    /// Restores (3).
    fn settled(mut self) -> Self {
        if self.numel == 0 {
            return self.row_major();
        }
        let mut step = 1;
        for d in (0..self.shape.len()).rev() {
            if self.shape[d] == 1 {
                self.strides.as_mut()[d] = step;
            }
            step = self.shape[d] * self.strides[d];
        }
        self
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn strides(&self) -> &Shape {
        &self.strides
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn numel(&self) -> usize {
        self.numel
    }

    /// Bytes of as many elements, adjacent.
    pub(crate) fn byte_len(&self) -> usize {
        self.numel * self.dtype.size()
    }

    /// Elements from the first to the one with the largest index, both included.
    pub(crate) fn extent(&self) -> usize {
        if self.numel == 0 {
            return 0;
        }
        let steps = self.shape.iter().zip(self.strides.iter());
        1 + steps.map(|(&n, &stride)| (n - 1) * stride).sum::<usize>()
    }

    /// Whether the elements lie one after another in row-major order.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.strides == self.row_major().strides
    }

    /// Entries `start..start + len` of `dim`, and the bytes from the first element to theirs; `None` if the dim has them not.
    pub(crate) fn narrow(mut self, dim: usize, start: usize, len: usize) -> Option<(Self, usize)> {
        let end = start.checked_add(len)?;
        if end > *self.shape.get(dim)? {
            return None;
        }
        self.shape.as_mut()[dim] = len;
        // No larger than before.
        self.numel = self.shape.numel();
        // A tensor without elements needs no place. Otherwise start < dim, so (2) bounds the product.
        let offset = match self.numel {
            0 => 0,
            _ => start * self.strides[dim] * self.dtype.size(),
        };
        Some((self.settled(), offset))
    }

    /// Without `dim`, which has one entry.
    pub(crate) fn without(self, dim: usize) -> Self {
        let keep = |s: &Shape| {
            let dims = s.iter().enumerate().filter(|&(d, _)| d != dim);
            Shape::from_iter(dims.map(|(_, &n)| n)).unwrap_or(*s)
        };
        Self {
            shape: keep(&self.shape),
            strides: keep(&self.strides),
            ..self
        }
        .settled()
    }

    /// Dim i is `order[i]` of this; `None` if that is no permutation.
    pub(crate) fn permute(self, order: &[usize]) -> Option<Self> {
        let mut seen = [false; MAX_NDIM];
        let valid = order.len() == self.shape.len()
            && order
                .iter()
                .all(|&d| d < order.len() && !std::mem::replace(&mut seen[d], true));
        let mut out = self;
        for (i, &d) in order.iter().enumerate().filter(|_| valid) {
            out.shape.as_mut()[i] = self.shape[d];
            out.strides.as_mut()[i] = self.strides[d];
        }
        valid.then(|| out.settled())
    }

    /// The last dim as `tail`; `None` if that is not its product, or there would be too many dims.
    pub(crate) fn split_last(self, tail: &[usize]) -> Option<Self> {
        let (&n, head) = self.shape.split_last()?;
        let tail = Shape::from_iter(tail.iter().copied())?;
        if tail.checked_numel() != Some(n) {
            return None;
        }
        let shape = Shape::from_iter(head.iter().chain(tail.iter()).copied())?;
        let step = self.strides[head.len()];
        let inner = tail.contiguous_strides();
        let inner = inner.iter().map(|stride| stride.saturating_mul(step));
        let strides = Shape::from_iter(self.strides[..head.len()].iter().copied().chain(inner))?;
        // Another shape of an empty tensor may be too large, and what (4) allows may be allowed by what this was made of.
        let numel = bounded_numel(&shape, self.dtype)?;
        let layout = Self {
            shape,
            strides,
            numel,
            ..self
        };
        Some(layout.settled())
    }

    /// Another shape over the same elements; `None` if they are not contiguous or not as many.
    pub(crate) fn reshape(self, shape: Shape) -> Option<Self> {
        let reshaped = Self::contiguous(shape, self.dtype)?;
        (self.is_contiguous() && reshaped.numel == self.numel).then_some(reshaped)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shape,
            strides,
            dtype,
            ..
        } = self;
        write!(f, "{shape:?} strides {strides:?} {dtype}")
    }
}

/// The number of elements, if (1) holds.
fn bounded_numel(shape: &Shape, dtype: DType) -> Option<usize> {
    let all = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    fits(all, dtype)?;
    Some(if shape.contains(&0) { 0 } else { all })
}

/// Whether so many elements are at most `isize::MAX` bytes.
fn fits(elements: usize, dtype: DType) -> Option<()> {
    let bytes = elements.checked_mul(dtype.size())?;
    isize::try_from(bytes).ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: [usize; 5] = [1 << 31, 1 << 40, 1 << 59, 1 << 63, usize::MAX];

    fn strided(shape: &[usize], strides: &[usize]) -> Option<Layout> {
        Layout::strided(Shape::new(shape), Shape::new(strides), DType::F32)
    }

    #[test]
    fn what_memory_cannot_hold_is_refused() {
        let contiguous = |shape: &[usize]| Layout::contiguous(Shape::new(shape), DType::BF16);
        assert!(contiguous(&[1 << 61, 2]).is_none());
        assert!(contiguous(&[1 << 62]).is_none());
        assert!(contiguous(&[(1 << 62) - 1]).is_some());
        for n in HUGE {
            assert!(
                contiguous(&[0, n, n]).is_none(),
                "{n}: dims beside a 0 are bounded too"
            );
            assert!(strided(&[2, n], &[n, n]).is_none());
            assert!(
                strided(&[2, 2], &[n, n]).is_none_or(|l| l.extent() <= isize::MAX as usize / 4)
            );
        }
        assert!(strided(&[1 << 59, 4], &[0, 1]).is_none(), "2^61 elements");
        assert!(
            strided(&[1 << 40, 4], &[0, 1]).is_none(),
            "repeated too often"
        );
        assert!(strided(&[1 << 34, 4], &[0, 1]).is_some());
        assert!(strided(&[1 << 40, 4], &[4, 1]).is_some(), "each once");
        assert!(strided(&[2], &[1, 1]).is_none());
    }

    #[test]
    fn strides_that_nobody_steps_along_are_settled() {
        let one = strided(&[3, 1, 4], &[4, usize::MAX, 1]).unwrap();
        assert_eq!(**one.strides(), [4, 4, 1]);
        assert!(one.is_contiguous());
        let empty = strided(&[3, 0, 4], &[usize::MAX; 3]).unwrap();
        assert_eq!(**empty.strides(), [4, 4, 1]);
        let (row, offset) = strided(&[3, 4], &[9, 2]).unwrap().narrow(0, 2, 1).unwrap();
        assert_eq!((&**row.strides(), offset), (&[8, 2][..], 72));
        let (none, offset) = strided(&[3, 4], &[9, 2]).unwrap().narrow(0, 3, 0).unwrap();
        assert_eq!((&**none.strides(), offset), (&[4, 1][..], 0));
    }

    #[test]
    fn another_shape_is_checked_again() {
        let empty = Layout::contiguous(Shape::new(&[2, 0]), DType::F32).unwrap();
        for n in HUGE {
            let far = empty.split_last(&[0, n]);
            assert_eq!(far.is_some(), n <= 1 << 59, "{n}");
            assert_eq!(
                empty.reshape(Shape::new(&[n, 0])).is_some(),
                n <= 1 << 59,
                "{n}"
            );
        }
        assert!(empty.split_last(&[0; 7]).is_none(), "too many dims");
        assert!(empty.narrow(0, usize::MAX, 2).is_none());
        assert!(empty.narrow(2, 0, 0).is_none());
        assert!(empty.permute(&[0, 0]).is_none());
        assert!(empty.permute(&[7, 0]).is_none());
    }
}
