use crate::{
    Result, Tier, ViewMut,
    attention::AttnOut,
    dtype::by_float,
    parallel::for_each_index,
    simd::{Lane, Shared, Simd, tiered},
};

/// Shapes were checked by the caller, and nobody changes the parts; the last stride of `out` is 1.
pub(super) fn merge(
    op: &'static str,
    a: &AttnOut,
    b: &AttnOut,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    if a.lse.numel() == 0 {
        return Ok(());
    }
    let steady = |part: &AttnOut| -> Result<AttnOut> {
        Ok(AttnOut {
            out: part.out.steady()?,
            lse: part.lse.steady()?,
        })
    };
    let (a, b) = (&steady(a)?, &steady(b)?);
    by_float!(op, a.out.dtype(), A => by_float!(op, b.out.dtype(), B => tokens::<A, B>(a, b, out, lse)));
    Ok(())
}

/// One task per (batch, token): all its heads.
fn tokens<A: Lane, B: Lane>(a: &AttnOut, b: &AttnOut, mut out: ViewMut<'_>, mut lse: ViewMut<'_>) {
    let tier: Tier = a.out.device().tier();
    let (lq, h, d) = (a.out.dim(1), a.out.dim(2), a.out.dim(3));
    let (Some(a_out), Some(b_out)) = (a.out.slice::<A>(), b.out.slice::<B>()) else {
        unreachable!("the caller matched the dtypes, and tensors are contiguous");
    };
    let (Some(a_lse), Some(b_lse)) = (a.lse.slice::<f32>(), b.lse.slice::<f32>()) else {
        unreachable!("the caller checked the dtype, and tensors are contiguous");
    };
    let (out_steps, lse_steps) = (out.strides().to_vec(), lse.strides().to_vec());
    let (out, lse) = (
        Shared(out.ptr().cast::<A>()),
        Shared(lse.ptr().cast::<f32>()),
    );
    for_each_index(a.out.dim(0) * lq, &|t| {
        let (batch, token) = (t / lq, t % lq);
        for head in 0..h {
            let row = (batch * h + head) * lq + token;
            let (wa, wb, sum) = weights(a_lse[row], b_lse[row]);
            let at = (t * h + head) * d;
            let (x, y) = (&a_out[at..at + d], &b_out[at..at + d]);
            // SAFETY: (batch, token, head) lies inside both outputs, whose strides never overlap, and only this task has
            // this token; x and y hold d elements each.
            unsafe {
                let to = batch * lse_steps[0] + head * lse_steps[1] + token * lse_steps[2];
                lse.ptr().add(to).write(sum);
                let to = batch * out_steps[0] + token * out_steps[1] + head * out_steps[2];
                // Rows of no elements lie nowhere: their place may be outside.
                merge_row::<A, B>(tier, x, y, wa, wb, out.ptr().wrapping_add(to));
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
/// `out` is writable for the length of x, and y is as long.
#[inline(always)]
unsafe fn row<S: Simd, A: Lane, B: Lane>(x: &[A], y: &[B], wa: f32, wb: f32, out: *mut A) {
    let d = x.len();
    let mut i = 0;
    while i < d {
        let n = S::LANES.min(d - i);
        // SAFETY: n elements from i on are inside all three.
        unsafe {
            let (vx, vy) = (
                A::load_n::<S>(x.as_ptr().add(i), n),
                B::load_n::<S>(y.as_ptr().add(i), n),
            );
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
tiered!(fn merge_row[A: Lane, B: Lane][A, B](x: &[A], y: &[B], wa: f32, wb: f32, out: *mut A) = row);
