//! How row kernels of the processor walk over strided operands, how the pool shares the walk, and operands as they read them.

use crate::{
    DType, Result, Tensor, View, dispatch::expect_parameter, layout, parallel::for_each_index,
    shape::MAX_NDIM, vector::filled,
};
use std::ops::{Deref, Range};

/// Bytes that one task touches at least: a few microseconds of work, more than handing a task over costs.
const TASK_BYTES: usize = 1 << 16;

/// Operands of one shape, seen as rows of adjacent elements.
#[derive(Debug)]
pub(crate) struct Walk<const N: usize> {
    /// Outer dims, innermost last, merged where every operand allows it.
    dims: [usize; MAX_NDIM],
    strides: [[usize; MAX_NDIM]; N],
    ndim: usize,
    /// Number of rows.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) len: usize,
}

impl<const N: usize> Walk<N> {
    /// Rows along the last dim, which is adjacent in every operand. Shape and strides are those of `Layout`s, so no product
    /// of them wraps.
    pub(crate) fn rows(shape: &[usize], strides: [&[usize]; N]) -> Self {
        let (len, outer) = shape.split_last().map_or((1, shape), |(&n, s)| (n, s));
        let mut walk = Self {
            dims: [1; MAX_NDIM],
            strides: [[0; MAX_NDIM]; N],
            ndim: 0,
            rows: outer.iter().product(),
            len,
        };
        // Rows without elements count as none: a loop over their number could run for years.
        if shape.contains(&0) {
            (walk.rows, walk.len) = (0, 0);
            return walk;
        }
        for (d, &n) in outer.iter().enumerate().filter(|&(_, &n)| n != 1) {
            let merges = walk.ndim > 0
                && (0..N).all(|o| walk.strides[o][walk.ndim - 1] == n * strides[o][d]);
            if merges {
                walk.dims[walk.ndim - 1] *= n;
            } else {
                walk.dims[walk.ndim] = n;
                walk.ndim += 1;
            }
            for (to, from) in walk.strides.iter_mut().zip(strides) {
                to[walk.ndim - 1] = from[d];
            }
        }
        walk
    }

    /// As [`rows`](Self::rows), but the innermost outer dim joins the row where it is adjacent in every operand: for
    /// operations that treat each element alike.
    pub(crate) fn elements(shape: &[usize], strides: [&[usize]; N]) -> Self {
        let mut walk = Self::rows(shape, strides);
        // Without rows there is nothing to join (and a dim may be 0).
        if walk.rows > 0
            && walk.ndim > 0
            && (0..N).all(|o| walk.strides[o][walk.ndim - 1] == walk.len)
        {
            walk.ndim -= 1;
            walk.rows /= walk.dims[walk.ndim];
            walk.len *= walk.dims[walk.ndim];
        }
        walk
    }

    /// The rows of `range`: each row's index, and its first element's offset in each operand.
    #[inline(always)]
    pub(crate) fn iter(&self, range: Range<usize>) -> Rows<'_, N> {
        let mut index = [0; MAX_NDIM];
        let (mut rest, mut offsets) = (range.start, [0; N]);
        for d in (0..self.ndim).rev() {
            index[d] = rest % self.dims[d];
            rest /= self.dims[d];
            for (o, offset) in offsets.iter_mut().enumerate() {
                *offset += index[d] * self.strides[o][d];
            }
        }
        Rows {
            walk: self,
            index,
            offsets,
            range,
        }
    }

    /// Calls `task` with ranges that tile the rows, on the current pool if there is work for more than one thread.
    /// `element_bytes` is what all operands of one element weigh.
    pub(crate) fn split_rows(&self, element_bytes: usize, task: impl Fn(Range<usize>) + Sync) {
        let per_task = (TASK_BYTES / (self.len * element_bytes).max(1)).max(1);
        split(self.rows, per_task, task);
    }

    /// Calls `task` with a range of rows and a range inside these rows that together tile all elements.
    pub(crate) fn split_elements(
        &self,
        element_bytes: usize,
        task: impl Fn(Range<usize>, Range<usize>) + Sync,
    ) {
        let piece = (TASK_BYTES / element_bytes).max(1);
        if self.len < 2 * piece {
            return self.split_rows(element_bytes, |rows| task(rows, 0..self.len));
        }
        let pieces = self.len.div_ceil(piece);
        split(self.rows * pieces, 1, |range| {
            for i in range {
                let (row, start) = (i / pieces, i % pieces * piece);
                task(row..row + 1, start..(start + piece).min(self.len));
            }
        });
    }
}

fn split(count: usize, per_task: usize, task: impl Fn(Range<usize>) + Sync) {
    let tasks = count.div_ceil(per_task);
    if tasks <= 1 {
        if count > 0 {
            task(0..count);
        }
        return;
    }
    for_each_index(tasks, &|t| {
        task(t * per_task..((t + 1) * per_task).min(count))
    });
}

/// Iterator over rows; see [`Walk::iter`].
pub(crate) struct Rows<'a, const N: usize> {
    walk: &'a Walk<N>,
    index: [usize; MAX_NDIM],
    offsets: [usize; N],
    range: Range<usize>,
}

impl<const N: usize> Iterator for Rows<'_, N> {
    type Item = (usize, [usize; N]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let row = self.range.next()?;
        let now = self.offsets;
        for d in (0..self.walk.ndim).rev() {
            self.index[d] += 1;
            if self.index[d] < self.walk.dims[d] {
                for o in 0..N {
                    self.offsets[o] += self.walk.strides[o][d];
                }
                break;
            }
            self.index[d] = 0;
            for o in 0..N {
                self.offsets[o] -= (self.walk.dims[d] - 1) * self.walk.strides[o][d];
            }
        }
        Some((row, now))
    }
}

/// Elements as adjacent f32: borrowed if they already are, otherwise converted, or filled with a default.
pub(crate) enum Floats<'a> {
    Borrowed(&'a [f32]),
    Owned(Tensor),
    Made(Vec<f32>),
}

impl<'a> Floats<'a> {
    /// The parameter `x`, which must have this shape.
    pub(crate) fn new(op: &'static str, x: View<'a>, shape: &[usize]) -> Result<Self> {
        expect_parameter(op, &x, shape)?;
        x.dtype().float(op)?;
        Ok(match x.slice() {
            Some(floats) => Self::Borrowed(floats),
            None => Self::Owned(layout::cast(x, DType::F32)?),
        })
    }

    /// The parameter `x` of `len` elements, or `len` times `default` if there is none.
    pub(crate) fn or(
        op: &'static str,
        x: Option<View<'a>>,
        len: usize,
        default: f32,
    ) -> Result<Self> {
        match x {
            Some(x) => Self::new(op, x, &[len]),
            None => Ok(Self::Made(filled(op, default, len)?)),
        }
    }
}

impl Deref for Floats<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            Self::Borrowed(floats) => floats,
            // Kernels read through its pointer: an empty slice would not do.
            Self::Owned(tensor) => {
                let Some(floats) = tensor.slice() else {
                    unreachable!("a cast to f32 is contiguous f32 of its own memory")
                };
                floats
            }
            Self::Made(floats) => floats,
        }
    }
}

/// A large operand with an adjacent last dim and a given dtype: itself where it is so, otherwise a copy.
pub(crate) struct Operand<'a> {
    view: View<'a>,
    copy: Option<Tensor>,
}

impl<'a> Operand<'a> {
    pub(crate) fn new(x: View<'a>, dtype: DType) -> Result<Self> {
        let adjacent = x.strides().last().is_none_or(|&s| s == 1) || x.shape().last() == Some(&1);
        let copy = (!adjacent || x.dtype() != dtype).then(|| layout::cast(x, dtype));
        Ok(Self {
            view: x,
            copy: copy.transpose()?,
        })
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.copy.as_ref().map_or(self.view, Tensor::view)
    }
}
