use super::part::MergedPart;
use crate::{
    Result, Tier, ViewMut,
    dtype::by_float,
    parallel::for_each_index,
    simd::{Lane, Shared, Simd, tiered},
};

/// Shapes were checked by the caller, and nobody else changes the parts; the last stride of each output is 1. The output may be the
/// first part.
pub(super) fn merge(
    op: &'static str,
    [a, b]: [MergedPart<'_>; 2],
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    if a.lse.numel() == 0 {
        return Ok(());
    }
    by_float!(op, a.out.dtype(), A => by_float!(op, b.out.dtype(), B => tokens::<A, B>(a, b, out, lse)));
    Ok(())
}

/// One task per (batch, token): all its heads.
fn tokens<A: Lane, B: Lane>(
    a: MergedPart<'_>,
    b: MergedPart<'_>,
    mut out: ViewMut<'_>,
    mut lse: ViewMut<'_>,
) {
    let tier: Tier = a.out.device().tier();
    let &[batches, lq, h, d] = a.out.shape() else {
        unreachable!("the caller checked the dims")
    };
    let (out_steps, lse_steps) = (out.strides().to_vec(), lse.strides().to_vec());
    let (out, lse) = (
        Shared(out.ptr().cast::<A>()),
        Shared(lse.ptr().cast::<f32>()),
    );
    for_each_index(batches * lq, &|t| {
        let (batch, token) = (t / lq, t % lq);
        for head in 0..h {
            let row = |steps: &[usize]| batch * steps[0] + token * steps[1] + head * steps[2];
            let number = |steps: &[usize]| batch * steps[0] + head * steps[1] + token * steps[2];
            // SAFETY: (batch, token, head) lies inside both parts and both outputs, whose strides never overlap, and only this
            // task has this token: it has read the numbers of the parts before it writes those of the outputs, which may be
            // the same. Every row is d adjacent elements.
            unsafe {
                let of = |part: &MergedPart<'_>| {
                    let lse = part.lse.ptr().cast::<f32>();
                    lse.add(number(part.lse.strides())).read()
                };
                let (wa, wb, sum) = weights(of(&a), of(&b));
                lse.ptr().add(number(&lse_steps)).write(sum);
                // Rows of no elements lie nowhere: their place may be outside.
                let x = (a.out.ptr().cast::<A>()).wrapping_add(row(a.out.strides()));
                let y = (b.out.ptr().cast::<B>()).wrapping_add(row(b.out.strides()));
                let to = out.ptr().wrapping_add(row(&out_steps));
                merge_row::<A, B>(tier, x, y, d, wa, wb, to);
            }
        }
    });
}

/// The share of each part and the log of the sum of both; a part at −∞ has no share.
pub(super) fn weights(a: f32, b: f32) -> (f32, f32, f32) {
    if b == f32::NEG_INFINITY {
        return (1.0, 0.0, a);
    }
    if a == f32::NEG_INFINITY {
        return (0.0, 1.0, b);
    }
    // f64: one rounding, to f32, at each hop.
    let (a, b) = (f64::from(a), f64::from(b));
    let (wa, wb) = (1.0 / (1.0 + (b - a).exp()), 1.0 / (1.0 + (a - b).exp()));
    let sum = a.max(b) + (-(a - b).abs()).exp().ln_1p();
    // `max` would drop a NaN; the difference keeps it.
    let sum = if (a - b).is_nan() { f64::NAN } else { sum };
    (wa as f32, wb as f32, sum as f32)
}

/// out = x · wa + y · wb; a weight of 0 leaves the other row as it is.
///
/// # Safety
/// d elements can be read at x and at y, and written at `out`, which is x or apart from both.
#[inline(always)]
unsafe fn row<S: Simd, A: Lane, B: Lane>(
    x: *const A,
    y: *const B,
    d: usize,
    wa: f32,
    wb: f32,
    out: *mut A,
) {
    let mut i = 0;
    while i < d {
        let n = S::LANES.min(d - i);
        // SAFETY: n elements from i on are inside all three.
        unsafe {
            let (vx, vy) = (A::load_n::<S>(x.add(i), n), B::load_n::<S>(y.add(i), n));
            let v = if wb == 0.0 {
                S::mul(vx, S::splat(wa))
            } else if wa == 0.0 {
                S::mul(vy, S::splat(wb))
            } else {
                S::fma(vx, S::splat(wa), S::mul(vy, S::splat(wb)))
            };
            A::store_n::<S>(out.add(i), n, v);
        }
        i += n;
    }
}
tiered!(fn merge_row[A: Lane, B: Lane][A, B](x: *const A, y: *const B, d: usize, wa: f32, wb: f32, out: *mut A) = row);
