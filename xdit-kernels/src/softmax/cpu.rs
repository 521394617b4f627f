use crate::{
    Result, View, ViewMut,
    dtype::by_float,
    rows::{Operand, Walk},
    simd::{Lane, Shared, Simd, math, tiered},
};
use std::ops::Range;

/// Shapes and dtypes are equal, last dims adjacent (checked by the caller).
pub(super) fn softmax(x: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    let x = Operand::new(x, x.dtype())?;
    let x = x.view();
    let walk = Walk::rows(x.shape(), [x.strides(), out.strides()]);
    by_float!("softmax", x.dtype(), T => {
        let (tier, src) = (x.device().tier(), Shared(x.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_rows(2 * size_of::<T>(), |rows| {
            // SAFETY: the walk was made from both views' common shape; tasks get disjoint rows and `out` is exclusively
            // borrowed.
            unsafe { run_softmax::<T>(tier, &walk, rows, src.ptr(), dst.ptr()) }
        });
    });
    Ok(())
}

/// e^x for x ≤ 0; exactly 0 below −87 (f32 has no normal number there), NaN for NaN.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise. `max` gives its second operand if one is NaN, so the last argument is NaN for NaN and
    // 0 for whatever else is not above −87.
    unsafe {
        let low = S::splat(-87.0);
        let rest = S::sub(S::max(low, x), low);
        S::select_gt(x, low, math::exp::<S>(x), rest)
    }
}

/// # Safety
/// The walk's offsets plus a row stay inside x and out; nobody else touches these rows of out.
#[inline(always)]
unsafe fn softmax_rows<S: Simd, T: Lane>(
    walk: &Walk<2>,
    rows: Range<usize>,
    x: *const T,
    out: *mut T,
) {
    let c = walk.len;
    for (_, [xo, oo]) in walk.iter(rows) {
        // SAFETY: the caller's promise; the loops end inside c; no tier has more than 16 lanes.
        unsafe {
            let (x, out) = (x.add(xo), out.add(oo));
            let mut highest = S::splat(f32::NEG_INFINITY);
            let mut i = 0;
            while i + S::LANES <= c {
                highest = S::max(highest, T::load::<S>(x.add(i)));
                i += S::LANES;
            }
            let mut m = S::max_lane(highest);
            while i < c {
                m = m.max((*x.add(i)).to_f32());
                i += 1;
            }
            // The exponentials are computed twice: a 16-bit output could not hold them in between.
            let m = S::splat(m);
            let (mut sum, mut i) = (S::zero(), 0);
            while i + S::LANES <= c {
                sum = S::add(sum, exp::<S>(S::sub(T::load::<S>(x.add(i)), m)));
                i += S::LANES;
            }
            let mut total = S::sum(sum);
            if i < c {
                let mut tail = [0f32; 16];
                let n = c - i;
                let e = exp::<S>(S::sub(T::load_n::<S>(x.add(i), n), m));
                S::store_n(tail.as_mut_ptr(), n, e);
                total += tail[..n].iter().sum::<f32>();
            }
            let r = S::splat(1.0 / total);
            let mut i = 0;
            while i < c {
                let n = S::LANES.min(c - i);
                let e = exp::<S>(S::sub(T::load_n::<S>(x.add(i), n), m));
                T::store_n::<S>(out.add(i), n, S::mul(e, r));
                i += n;
            }
        }
    }
}
tiered!(fn run_softmax[T: Lane][T](walk: &Walk<2>, rows: Range<usize>, x: *const T, out: *mut T) = softmax_rows);
