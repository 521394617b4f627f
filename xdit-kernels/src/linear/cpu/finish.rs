//! The end of the product: the fused operation on a tile of sums, one rounding, the store.

use super::row_offsets::RowOffsets;
use crate::{
    Tier, View,
    activation::Activation,
    dtype::FloatType,
    simd::{Lane, Shared, Simd, tiered},
};
use half::{bf16, f16};
use std::ops::Range;

/// Everything that the end of the product needs. Operands have the dtype of the output and adjacent last dims.
pub(super) struct Finish<'a> {
    pub(super) tier: Tier,
    /// What sums begin with, padded with zeros to whole panels.
    pub(super) bias: &'a [f32],
    pub(super) kind: FusedOp<'a>,
    pub(super) dtype: FloatType,
    pub(super) rows: RowOffsets,
    pub(super) out: Shared<u8>,
    pub(super) n: usize,
}

/// The [`Epilogue`](super::Epilogue) with its operands as the loops read them.
#[allow(
    clippy::large_enum_variant,
    reason = "one lives on the stack for a call"
)]
pub(super) enum FusedOp<'a> {
    None,
    Activation(Activation),
    Residual(RowOperand<'a>),
    GateResidual {
        gate: RowOperand<'a>,
        rows_per_gate: usize,
        residual: RowOperand<'a>,
    },
    Mul(RowOperand<'a>),
}

/// A tensor that is read row by row.
pub(super) struct RowOperand<'a> {
    view: View<'a>,
    rows: RowOffsets,
}

impl<'a> From<View<'a>> for RowOperand<'a> {
    fn from(view: View<'a>) -> Self {
        Self {
            rows: RowOffsets::leading(view.shape(), view.strides()),
            view,
        }
    }
}

impl RowOperand<'_> {
    /// # Safety
    /// The view's dtype is T and has such a row and column.
    #[inline(always)]
    unsafe fn at<T>(&self, row: usize, column: usize) -> *const T {
        // SAFETY: the caller's promise: the view reaches the element.
        unsafe {
            self.view
                .ptr()
                .cast::<T>()
                .add(self.rows.offset(row) + column)
        }
    }
}

impl Finish<'_> {
    /// Address of an element of the output, and bytes from its row to the one `rows` below: for prefetching, may be wrong.
    pub(super) fn place(
        &self,
        row: usize,
        rows: usize,
        column: usize,
    ) -> (*const u8, usize, usize) {
        let size = self.dtype.size();
        let at = self.rows.offset(row);
        let below = self.rows.offset(row + rows).wrapping_sub(at);
        let start = self.out.ptr().wrapping_add((at + column) * size);
        (start, below.wrapping_mul(size), size)
    }

    /// Where rows from `row` on have their sums stored at once, rounded, and the elements from one to the next: if nothing
    /// else is done to them and all of `columns` are the output's.
    pub(super) fn direct(&self, row: usize, columns: Range<usize>) -> Option<(*mut u8, usize)> {
        let stride = self.rows.stride()?;
        let whole = matches!(self.kind, FusedOp::None) && columns.end <= self.n;
        whole.then(|| {
            let at = (row * stride + columns.start) * self.dtype.size();
            (self.out.ptr().wrapping_add(at), stride)
        })
    }

    /// Finishes rows and columns of the output whose sums are `sums[(row - rows.start)·stride + column - columns.start]`.
    ///
    /// # Safety
    /// The sums are there for whole vectors of columns; rows and columns are inside the output; `columns.start` is a
    /// multiple of the tile's width; nobody else touches these elements.
    pub(super) unsafe fn run(
        &self,
        sums: *const f32,
        stride: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        // SAFETY: the caller's promise; the output's dtype is T.
        unsafe {
            match self.dtype {
                FloatType::F32 => finish::<f32>(self.tier, self, sums, stride, rows, columns),
                FloatType::F16 => finish::<f16>(self.tier, self, sums, stride, rows, columns),
                FloatType::BF16 => finish::<bf16>(self.tier, self, sums, stride, rows, columns),
            }
        }
    }
}

/// # Safety
/// `count <= LANES` elements at p.
#[inline(always)]
unsafe fn load<S: Simd, T: Lane>(p: *const T, count: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        if count == S::LANES {
            T::load::<S>(p)
        } else {
            T::load_n::<S>(p, count)
        }
    }
}

/// What happens to a vector of sums. A trait, not closures: a closure has none of the tier's instructions, so where the
/// compiler does not inline it each of them becomes a call.
trait Then<S: Simd, T: Lane>: Copy {
    /// # Safety
    /// As [`Simd`]'s; the operands have `count` columns from `j` on.
    unsafe fn apply(self, j: usize, count: usize, v: S::V) -> S::V;
}

#[derive(Clone, Copy)]
struct Keep;
#[derive(Clone, Copy)]
struct Activate(Activation);
#[derive(Clone, Copy)]
struct Add<T>(*const T);
#[derive(Clone, Copy)]
struct Gate<T> {
    gate: *const T,
    residual: *const T,
}
#[derive(Clone, Copy)]
struct Multiply<T>(*const T);

impl<S: Simd, T: Lane> Then<S, T> for Keep {
    #[inline(always)]
    unsafe fn apply(self, _j: usize, _count: usize, v: S::V) -> S::V {
        v
    }
}

impl<S: Simd, T: Lane> Then<S, T> for Activate {
    #[inline(always)]
    unsafe fn apply(self, _j: usize, _count: usize, v: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { self.0.apply::<S, T>(v) }
    }
}

impl<S: Simd, T: Lane> Then<S, T> for Add<T> {
    #[inline(always)]
    unsafe fn apply(self, j: usize, count: usize, v: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::add(load::<S, T>(self.0.add(j), count), v) }
    }
}

impl<S: Simd, T: Lane> Then<S, T> for Gate<T> {
    #[inline(always)]
    unsafe fn apply(self, j: usize, count: usize, v: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            let (gate, residual) = (self.gate.add(j), self.residual.add(j));
            S::fma(load::<S, T>(gate, count), v, load::<S, T>(residual, count))
        }
    }
}

impl<S: Simd, T: Lane> Then<S, T> for Multiply<T> {
    #[inline(always)]
    unsafe fn apply(self, j: usize, count: usize, v: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::mul(load::<S, T>(self.0.add(j), count), v) }
    }
}

/// One row: `out[j] = then(j, count, sums[j])` by vectors of `count` columns.
///
/// # Safety
/// `n` columns at `out`, whole vectors of them at `sums`.
#[inline(always)]
unsafe fn row<S: Simd, T: Lane>(sums: *const f32, out: *mut T, n: usize, then: impl Then<S, T>) {
    let mut j = 0;
    // SAFETY: the caller's promise; j + count <= n.
    unsafe {
        while j + S::LANES <= n {
            let v = S::load(sums.add(j));
            T::store::<S>(out.add(j), then.apply(j, S::LANES, v));
            j += S::LANES;
        }
        if j < n {
            let v = S::load(sums.add(j));
            T::store_n::<S>(out.add(j), n - j, then.apply(j, n - j, v));
        }
    }
}

/// # Safety
/// As [`Finish::run`]'s, for an output of dtype T.
#[inline(always)]
unsafe fn finish_body<S: Simd, T: Lane>(
    finish: &Finish<'_>,
    sums: *const f32,
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    let (n, column) = (columns.len(), columns.start);
    for (i, r) in rows.enumerate() {
        // SAFETY: the caller's promise: each operand has the output's rows (the gate one for `rows_per_gate` of them)
        // and columns, checked before the dispatch.
        unsafe {
            let sums = sums.add(i * stride);
            let out = finish
                .out
                .ptr()
                .cast::<T>()
                .add(finish.rows.offset(r) + column);
            match &finish.kind {
                FusedOp::None => row::<S, T>(sums, out, n, Keep),
                // A loop of its own for the activation of Flux and T5.
                FusedOp::Activation(Activation::GeluTanh) => {
                    row::<S, T>(sums, out, n, Activate(Activation::GeluTanh));
                }
                FusedOp::Activation(activation) => {
                    row::<S, T>(sums, out, n, Activate(*activation));
                }
                FusedOp::Residual(residual) => {
                    row::<S, T>(sums, out, n, Add(residual.at::<T>(r, column)));
                }
                FusedOp::GateResidual {
                    gate,
                    rows_per_gate,
                    residual,
                } => {
                    let gate = gate.at::<T>(r / rows_per_gate, column);
                    let residual = residual.at::<T>(r, column);
                    row::<S, T>(sums, out, n, Gate { gate, residual });
                }
                FusedOp::Mul(factor) => {
                    row::<S, T>(sums, out, n, Multiply(factor.at::<T>(r, column)));
                }
            }
        }
    }
}
tiered!(fn finish[T: Lane][T](finish: &Finish<'_>, sums: *const f32, stride: usize, rows: Range<usize>, columns: Range<usize>) = finish_body);
