use super::combine::Combine;
use crate::{
    DType, Result, TensorMut, View, ViewMut,
    dtype::by_float,
    layout,
    rows::{Floats, Operand, Walk},
    shape::MAX_NDIM,
    simd::{Lane, Shared, Simd, tiered},
};
use std::ops::Range;

/// out = combine(x, y), in f32 where the dtypes differ. Shapes are checked by the caller.
pub(super) fn binary(x: View<'_>, y: View<'_>, combine: Combine, out: ViewMut<'_>) -> Result<()> {
    if x.dtype() != y.dtype() {
        let (x, y) = (Operand::new(x, DType::F32)?, Operand::new(y, DType::F32)?);
        if out.dtype() == DType::F32 {
            return combined(x.view(), y.view(), combine, out);
        }
        let mut wide = TensorMut::unfilled(out.shape(), DType::F32, out.device())?;
        let part = wide.part(&[])?;
        part.written_by(|part| combined(x.view(), y.view(), combine, part))?;
        return layout::copy_into(&wide.freeze()?, out);
    }
    let (x, y) = (Operand::new(x, x.dtype())?, Operand::new(y, x.dtype())?);
    combined(x.view(), y.view(), combine, out)
}

/// out = combine(x, y). y's shape is the end of x's (0-strides repeat it); dtypes are equal, last dims adjacent.
fn combined(x: View<'_>, y: View<'_>, combine: Combine, mut out: ViewMut<'_>) -> Result<()> {
    let mut y_strides = [0; MAX_NDIM];
    y_strides[x.ndim() - y.ndim()..x.ndim()].copy_from_slice(y.strides());
    let walk = Walk::elements(
        x.shape(),
        [x.strides(), &y_strides[..x.ndim()], out.strides()],
    );
    by_float!("elementwise", x.dtype(), T => {
        let tier = x.device().tier();
        let (x, y) = (Shared(x.ptr().cast::<T>().cast_mut()), Shared(y.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_elements(3 * size_of::<T>(), |rows, span| {
            // SAFETY: the walk's offsets plus the span stay inside the views, whose shape it was made from; tasks get
            // disjoint elements and `out` is exclusively borrowed.
            unsafe { run_binary::<T>(tier, &walk, rows, span, x.ptr(), y.ptr(), combine, dst.ptr()) }
        });
    });
    Ok(())
}

/// out = residual + gate·x, [b, l, c] with gate [b, c], in f32 where the dtypes differ. Shapes are checked by the caller.
pub(super) fn gate_residual(
    x: View<'_>,
    gate: View<'_>,
    residual: View<'_>,
    out: ViewMut<'_>,
) -> Result<()> {
    let gate = Floats::new("gate_residual", gate, gate.shape())?;
    if x.dtype() != residual.dtype() {
        let (x, residual) = (
            Operand::new(x, DType::F32)?,
            Operand::new(residual, DType::F32)?,
        );
        if out.dtype() == DType::F32 {
            return gated_sum(x.view(), &gate, residual.view(), out);
        }
        let mut sum = TensorMut::unfilled(out.shape(), DType::F32, out.device())?;
        let part = sum.part(&[])?;
        part.written_by(|part| gated_sum(x.view(), &gate, residual.view(), part))?;
        return layout::copy_into(&sum.freeze()?, out);
    }
    let (x, residual) = (
        Operand::new(x, x.dtype())?,
        Operand::new(residual, residual.dtype())?,
    );
    gated_sum(x.view(), &gate, residual.view(), out)
}

/// Likewise; dtypes are equal, last dims adjacent.
fn gated_sum(x: View<'_>, gate: &[f32], residual: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    let tokens = x.dim(1);
    let walk = Walk::rows(x.shape(), [x.strides(), residual.strides(), out.strides()]);
    by_float!("elementwise", x.dtype(), T => {
        let tier = x.device().tier();
        let (x, y) = (Shared(x.ptr().cast::<T>().cast_mut()), Shared(residual.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_rows(3 * size_of::<T>(), |rows| {
            // SAFETY: as above; the gate holds a row for each batch entry, as the caller checked.
            unsafe { run_gate_residual::<T>(tier, &walk, rows, x.ptr(), gate, tokens, y.ptr(), dst.ptr()) }
        });
    });
    Ok(())
}

/// # Safety
/// Offsets of `walk` plus `span` stay inside x, y and out; nobody else touches these elements of out.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes pointers and sizes"
)]
unsafe fn binary_rows<S: Simd, T: Lane>(
    walk: &Walk<3>,
    rows: Range<usize>,
    span: Range<usize>,
    x: *const T,
    y: *const T,
    combine: Combine,
    out: *mut T,
) {
    for (_, [xo, yo, oo]) in walk.iter(rows) {
        // SAFETY: the caller's promise; whole vectors end inside the span, the tail takes the rest.
        unsafe {
            let (x, y) = (x.add(xo + span.start), y.add(yo + span.start));
            let (out, n) = (out.add(oo + span.start), span.len());
            // One loop each, with no branch inside.
            macro_rules! each {
                ($a:ident, $b:ident => $v:expr) => {{
                    let mut i = 0;
                    while i + S::LANES <= n {
                        let ($a, $b) = (T::load::<S>(x.add(i)), T::load::<S>(y.add(i)));
                        T::store::<S>(out.add(i), $v);
                        i += S::LANES;
                    }
                    if i < n {
                        let n = n - i;
                        let ($a, $b) = (T::load_n::<S>(x.add(i), n), T::load_n::<S>(y.add(i), n));
                        T::store_n::<S>(out.add(i), n, $v);
                    }
                }};
            }
            match combine {
                Combine::Add => each!(a, b => S::add(a, b)),
                Combine::Sub => each!(a, b => S::sub(a, b)),
                Combine::Mul => each!(a, b => S::mul(a, b)),
                Combine::AddScaled(k) => {
                    let k = S::splat(k);
                    each!(a, b => S::add(a, S::mul(k, b)))
                }
                Combine::WeightedSum(k, l) => {
                    let (k, l) = (S::splat(k), S::splat(l));
                    each!(a, b => S::add(S::mul(k, a), S::mul(l, b)))
                }
                Combine::Scale(k) => {
                    let k = S::splat(k);
                    each!(a, _b => S::mul(k, a))
                }
                Combine::ScaleShift(k, l) => {
                    let (k, l) = (S::splat(k), S::splat(l));
                    each!(a, _b => S::add(S::mul(k, a), l))
                }
                Combine::Divide(k) => {
                    let k = S::splat(k);
                    each!(a, _b => S::div(a, k))
                }
                Combine::Clamp(low, high) => {
                    let (low, high) = (S::splat(low), S::splat(high));
                    // No comparison with NaN is true.
                    each!(a, _b => {
                        let a = S::select_gt(low, a, low, a);
                        S::select_gt(a, high, high, a)
                    })
                }
            }
        }
    }
}
tiered!(fn run_binary[T: Lane][T](walk: &Walk<3>, rows: Range<usize>, span: Range<usize>, x: *const T, y: *const T,
    combine: Combine, out: *mut T) = binary_rows);

/// # Safety
/// The walk's offsets plus a row stay inside x, residual and out; gate holds a row for each `tokens` rows; nobody else
/// touches these rows of out.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes pointers and sizes"
)]
unsafe fn gate_residual_rows<S: Simd, T: Lane>(
    walk: &Walk<3>,
    rows: Range<usize>,
    x: *const T,
    gate: &[f32],
    tokens: usize,
    residual: *const T,
    out: *mut T,
) {
    let c = walk.len;
    for (row, [xo, ro, oo]) in walk.iter(rows) {
        // SAFETY: the caller's promise.
        unsafe {
            let (x, residual, out) = (x.add(xo), residual.add(ro), out.add(oo));
            let gate = gate.as_ptr().add(row / tokens * c);
            let mut i = 0;
            while i + S::LANES <= c {
                let (a, b) = (T::load::<S>(x.add(i)), T::load::<S>(residual.add(i)));
                T::store::<S>(out.add(i), S::fma(S::load(gate.add(i)), a, b));
                i += S::LANES;
            }
            if i < c {
                let n = c - i;
                let (a, b) = (
                    T::load_n::<S>(x.add(i), n),
                    T::load_n::<S>(residual.add(i), n),
                );
                T::store_n::<S>(out.add(i), n, S::fma(S::load_n(gate.add(i), n), a, b));
            }
        }
    }
}
tiered!(fn run_gate_residual[T: Lane][T](walk: &Walk<3>, rows: Range<usize>, x: *const T, gate: &[f32], tokens: usize,
    residual: *const T, out: *mut T) = gate_residual_rows);
