use super::{function::Activation, math::with_activation};
use crate::{
    Result, View, ViewMut,
    dtype::by_float,
    rows::{Operand, Walk},
    simd::{Lane, Shared, Simd, tiered},
};
use std::ops::Range;

/// out = act(x). Shapes and dtypes are equal, last dims adjacent (checked by the caller).
pub(super) fn activation(x: View<'_>, act: Activation, mut out: ViewMut<'_>) -> Result<()> {
    let x = Operand::new(x, x.dtype())?;
    let x = x.view();
    let walk = Walk::elements(x.shape(), [x.strides(), out.strides()]);
    by_float!("activation", x.dtype(), T => {
        let (tier, src, dst) = (x.device().tier(), Shared(x.ptr().cast::<T>().cast_mut()), Shared(out.ptr().cast::<T>()));
        walk.split_elements(2 * size_of::<T>(), |rows, span| {
            // SAFETY: the walk's offsets plus the span stay inside both views, whose shape it was made from; tasks get
            // disjoint elements and `out` is exclusively borrowed.
            unsafe { run_activation::<T>(tier, &walk, rows, span, src.ptr(), dst.ptr(), act) }
        });
    });
    Ok(())
}

/// out = act(x)·y, likewise.
pub(super) fn gated(x: View<'_>, y: View<'_>, act: Activation, mut out: ViewMut<'_>) -> Result<()> {
    let (x, y) = (Operand::new(x, x.dtype())?, Operand::new(y, x.dtype())?);
    let (x, y) = (x.view(), y.view());
    let walk = Walk::elements(x.shape(), [x.strides(), y.strides(), out.strides()]);
    by_float!("activation", x.dtype(), T => {
        let tier = x.device().tier();
        let (x, y) = (Shared(x.ptr().cast::<T>().cast_mut()), Shared(y.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_elements(3 * size_of::<T>(), |rows, span| {
            // SAFETY: as above, with one more operand of the same shape.
            unsafe { run_gated::<T>(tier, &walk, rows, span, x.ptr(), y.ptr(), dst.ptr(), act) }
        });
    });
    Ok(())
}

/// # Safety
/// Offsets of `walk` plus `span` stay inside x and out, which are of one shape; nobody else touches these elements of out.
#[inline(always)]
unsafe fn activation_rows<S: Simd, T: Lane>(
    walk: &Walk<2>,
    rows: Range<usize>,
    span: Range<usize>,
    x: *const T,
    out: *mut T,
    act: Activation,
) {
    let n = span.len();
    for (_, [xo, oo]) in walk.iter(rows) {
        // SAFETY: the caller's promise; whole vectors end inside the span, the tail takes the rest.
        unsafe {
            let (x, out) = (x.add(xo + span.start), out.add(oo + span.start));
            with_activation!(act, ACT => {
                let mut i = 0;
                while i + S::LANES <= n {
                    T::store::<S>(out.add(i), ACT.apply::<S, T>(T::load::<S>(x.add(i))));
                    i += S::LANES;
                }
                if i < n {
                    let v = ACT.apply::<S, T>(T::load_n::<S>(x.add(i), n - i));
                    T::store_n::<S>(out.add(i), n - i, v);
                }
            })
        }
    }
}
tiered!(fn run_activation[T: Lane][T](walk: &Walk<2>, rows: Range<usize>, span: Range<usize>, x: *const T, out: *mut T,
    act: Activation) = activation_rows);

/// # Safety
/// As [`activation_rows`]'s, for x, y and out.
#[inline(always)]
unsafe fn gated_rows<S: Simd, T: Lane>(
    walk: &Walk<3>,
    rows: Range<usize>,
    span: Range<usize>,
    x: *const T,
    y: *const T,
    out: *mut T,
    act: Activation,
) {
    let n = span.len();
    for (_, [xo, yo, oo]) in walk.iter(rows) {
        // SAFETY: as above.
        unsafe {
            let (x, y) = (x.add(xo + span.start), y.add(yo + span.start));
            let out = out.add(oo + span.start);
            with_activation!(act, ACT => {
                let mut i = 0;
                while i + S::LANES <= n {
                    let a = ACT.apply::<S, T>(T::load::<S>(x.add(i)));
                    T::store::<S>(out.add(i), S::mul(a, T::load::<S>(y.add(i))));
                    i += S::LANES;
                }
                if i < n {
                    let a = ACT.apply::<S, T>(T::load_n::<S>(x.add(i), n - i));
                    let v = S::mul(a, T::load_n::<S>(y.add(i), n - i));
                    T::store_n::<S>(out.add(i), n - i, v);
                }
            })
        }
    }
}
tiered!(fn run_gated[T: Lane][T](walk: &Walk<3>, rows: Range<usize>, span: Range<usize>, x: *const T, y: *const T,
    out: *mut T, act: Activation) = gated_rows);
