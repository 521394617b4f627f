use crate::{
    View, ViewMut,
    norm::sum_of_squares,
    rows::{Walk, by_dtype},
    simd::{Lane, Shared, Simd, tiered},
};
use std::ops::Range;

/// What is done to each head row of one stream.
pub(super) struct HeadRow<'a> {
    /// [d]; ones where the norm has no weight or there is no norm.
    pub(super) gain: &'a [f32],
    /// The norm's epsilon; `None` leaves the length of the row.
    pub(super) eps: Option<f32>,
    /// cos and sin, [l, d] each.
    pub(super) rope: Option<(&'a [f32], &'a [f32])>,
    /// Head rows of one token.
    pub(super) heads: usize,
    /// Tokens of one batch entry.
    pub(super) tokens: usize,
}

/// out = rope(norm(x)), rows of [b, l, h, d]. Shapes and dtypes are checked by the caller.
pub(super) fn norm_rope(x: View<'_>, head: &HeadRow<'_>, mut out: ViewMut<'_>) {
    let walk = Walk::rows(x.shape(), [x.strides(), out.strides()]);
    by_dtype!(x.dtype(), T => {
        let (tier, src) = (x.device().tier(), Shared(x.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_rows(2 * size_of::<T>(), |rows| {
            // SAFETY: the walk was made from both views' common shape; tasks get disjoint rows and `out` is exclusively
            // borrowed; the tables' lengths are checked by the caller.
            unsafe { run_norm_rope::<T>(tier, &walk, rows, src.ptr(), head, dst.ptr()) }
        });
    });
}

/// q, k = rope(norm(·)), v copied, in one pass over the three parts of a fused projection.
pub(super) fn qk_norm_rope(
    parts: [View<'_>; 3],
    heads: [&HeadRow<'_>; 2],
    mut outs: [ViewMut<'_>; 3],
) {
    let [q, k, v] = &parts;
    let walk = Walk::rows(
        q.shape(),
        [
            q.strides(),
            k.strides(),
            v.strides(),
            outs[0].strides(),
            outs[1].strides(),
            outs[2].strides(),
        ],
    );
    by_dtype!(q.dtype(), T => {
        let tier = q.device().tier();
        let src = parts.map(|p| Shared(p.ptr().cast::<T>().cast_mut()));
        let dst = outs.each_mut().map(|o| Shared(o.ptr().cast::<T>()));
        walk.split_rows(6 * size_of::<T>(), |rows| {
            let (src, dst) = (src.each_ref().map(Shared::ptr), dst.each_ref().map(Shared::ptr));
            // SAFETY: as above, for three inputs and three outputs that the caller holds exclusively.
            unsafe { run_qk_norm_rope::<T>(tier, &walk, rows, src, heads, dst) }
        });
    });
}

/// One head row: x / √(mean of x² + eps) · gain, then each pair (y₀, y₁) turned: y₀·cos − y₁·sin, y₁·cos + y₀·sin.
///
/// # Safety
/// x and out point at d elements, d even if there is a rope; gain and the tables hold the row's entries.
#[inline(always)]
unsafe fn head_row<S: Simd, T: Lane>(
    x: *const T,
    d: usize,
    row: usize,
    head: &HeadRow<'_>,
    out: *mut T,
) {
    // SAFETY: the caller's promise; LANES is even, so a pair never spans two vectors.
    unsafe {
        let gain = head.gain.as_ptr();
        let r = match head.eps {
            Some(eps) => 1.0 / (sum_of_squares::<S, T>(x, d) / d as f32 + eps).sqrt(),
            None => 1.0,
        };
        let r = S::splat(r);
        let mut i = 0;
        if let Some((cos, sin)) = head.rope {
            let at = row / head.heads % head.tokens * d;
            let (cos, sin) = (cos.as_ptr().add(at), sin.as_ptr().add(at));
            while i + S::LANES <= d {
                let y = S::mul(S::mul(T::load::<S>(x.add(i)), r), S::load(gain.add(i)));
                let turned = S::mul(S::negate_even(S::swap_pairs(y)), S::load(sin.add(i)));
                T::store::<S>(out.add(i), S::fma(y, S::load(cos.add(i)), turned));
                i += S::LANES;
            }
            if i < d {
                let n = d - i;
                let y = S::mul(T::load_n::<S>(x.add(i), n), r);
                let y = S::mul(y, S::load_n(gain.add(i), n));
                let turned = S::mul(S::negate_even(S::swap_pairs(y)), S::load_n(sin.add(i), n));
                T::store_n::<S>(out.add(i), n, S::fma(y, S::load_n(cos.add(i), n), turned));
            }
        } else {
            while i < d {
                let n = S::LANES.min(d - i);
                let y = S::mul(T::load_n::<S>(x.add(i), n), r);
                T::store_n::<S>(out.add(i), n, S::mul(y, S::load_n(gain.add(i), n)));
                i += n;
            }
        }
    }
}

/// # Safety
/// The walk's offsets plus a row stay inside x and out; gain is a row and the tables hold every token; d is even if there
/// is a rope; nobody else touches these rows of out.
#[inline(always)]
unsafe fn norm_rope_rows<S: Simd, T: Lane>(
    walk: &Walk<2>,
    rows: Range<usize>,
    x: *const T,
    head: &HeadRow<'_>,
    out: *mut T,
) {
    for (row, [xo, oo]) in walk.iter(rows) {
        // SAFETY: the caller's promise.
        unsafe { head_row::<S, T>(x.add(xo), walk.len, row, head, out.add(oo)) }
    }
}
tiered!(fn run_norm_rope[T: Lane][T](walk: &Walk<2>, rows: Range<usize>, x: *const T, head: &HeadRow<'_>,
    out: *mut T) = norm_rope_rows);

/// # Safety
/// As [`norm_rope_rows`]'s, for the three inputs and outputs.
#[inline(always)]
unsafe fn qk_norm_rope_rows<S: Simd, T: Lane>(
    walk: &Walk<6>,
    rows: Range<usize>,
    src: [*mut T; 3],
    heads: [&HeadRow<'_>; 2],
    dst: [*mut T; 3],
) {
    for (row, [q, k, v, q_out, k_out, v_out]) in walk.iter(rows) {
        // SAFETY: the caller's promise.
        unsafe {
            head_row::<S, T>(src[0].add(q), walk.len, row, heads[0], dst[0].add(q_out));
            head_row::<S, T>(src[1].add(k), walk.len, row, heads[1], dst[1].add(k_out));
            std::ptr::copy_nonoverlapping(src[2].add(v), dst[2].add(v_out), walk.len);
        }
    }
}
tiered!(fn run_qk_norm_rope[T: Lane][T](walk: &Walk<6>, rows: Range<usize>, src: [*mut T; 3], heads: [&HeadRow<'_>; 2],
    dst: [*mut T; 3]) = qk_norm_rope_rows);
