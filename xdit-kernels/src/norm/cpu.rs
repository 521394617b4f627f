use super::after::After;
use crate::{
    Result, View, ViewMut,
    dtype::by_float,
    rows::{Floats, Operand, Walk},
    simd::{Lane, Shared, Simd, tiered},
    vector::reserved,
};
use std::ops::Range;

/// What is done to a normalised row: times gain, plus bias, both [parameter rows, c].
struct RowAffine<'a> {
    gain: &'a [f32],
    bias: &'a [f32],
    /// Rows of x that one parameter row serves.
    rows_each: usize,
}

/// `op` is what errors name.
pub(super) fn layer_norm(
    op: &'static str,
    x: View<'_>,
    after: After<'_>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let operand = Operand::new(x, x.dtype())?;
    let c = x.dim(x.ndim() - 1);
    match after {
        After::Affine { weight, bias } => {
            let affine = RowAffine {
                gain: &Floats::or(op, weight, c, 1.0)?,
                bias: &Floats::or(op, bias, c, 0.0)?,
                rows_each: usize::MAX,
            };
            normalised(operand.view(), &affine, eps, out)
        }
        After::Modulate { shift, scale } => {
            let scale = Floats::new(op, scale, scale.shape())?;
            let mut gain = reserved(op, scale.len())?;
            gain.extend(scale.iter().map(|s| 1.0 + s));
            let affine = RowAffine {
                gain: &gain,
                bias: &Floats::new(op, shift, shift.shape())?,
                rows_each: x.dim(1),
            };
            normalised(operand.view(), &affine, eps, out)
        }
        After::Shift { weight, shift } => {
            let batch = shift.dim(0);
            let shift = Floats::new(op, shift, shift.shape())?;
            let weight = Floats::new(op, weight, &[c])?;
            let mut gain = reserved(op, shift.len())?;
            (0..batch).for_each(|_| gain.extend_from_slice(&weight));
            let affine = RowAffine {
                gain: &gain,
                bias: &shift,
                rows_each: x.dim(1),
            };
            normalised(operand.view(), &affine, eps, out)
        }
    }
}

/// Gain and bias hold a parameter row for each row of x; the last dims are adjacent.
fn normalised(x: View<'_>, affine: &RowAffine<'_>, eps: f32, mut out: ViewMut<'_>) -> Result<()> {
    let walk = Walk::rows(x.shape(), [x.strides(), out.strides()]);
    let far = x.numel() * x.dtype().size() >= FAR_BYTES;
    by_float!("norm", x.dtype(), T => {
        let (tier, src) = (x.device().tier(), Shared(x.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_rows(2 * size_of::<T>(), |rows| {
            // SAFETY: the walk was made from both views' common shape; tasks get disjoint rows and `out` is exclusively
            // borrowed; the parameters' lengths are checked by the caller.
            unsafe { run_layer_norm::<T>(tier, &walk, rows, src.ptr(), affine, eps, dst.ptr(), far) }
        });
    });
    Ok(())
}

/// Shapes are checked by the caller: the weight is [c].
pub(super) fn rms_norm(
    x: View<'_>,
    weight: Option<View<'_>>,
    eps: f32,
    mut out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let gain: &[f32] = &Floats::or("rms_norm", weight, x.dim(x.ndim() - 1), 1.0)?;
    let x = Operand::new(x, x.dtype())?;
    let x = x.view();
    let walk = Walk::rows(x.shape(), [x.strides(), out.strides()]);
    by_float!("norm", x.dtype(), T => {
        let (tier, src) = (x.device().tier(), Shared(x.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_rows(2 * size_of::<T>(), |rows| {
            // SAFETY: as above.
            unsafe { run_rms_norm::<T>(tier, &walk, rows, src.ptr(), gain, eps, dst.ptr()) }
        });
    });
    Ok(())
}

/// Bytes of a result from which on it is stored past the caches: most of it would have left them before anyone reads it,
/// and each line would be read before it is overwritten.
const FAR_BYTES: usize = 16 << 20;

/// Independent sums that hide the latency of an addition and keep each one short.
const SUMS: usize = 4;

/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
unsafe fn total<S: Simd>(s: [S::V; SUMS]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { S::sum(S::add(S::add(s[0], s[1]), S::add(s[2], s[3]))) }
}

/// Σ x.
///
/// # Safety
/// x points at c elements.
#[inline(always)]
pub(crate) unsafe fn sum<S: Simd, T: Lane>(x: *const T, c: usize) -> f32 {
    // SAFETY: the caller's promise; the loops end inside c.
    unsafe {
        let mut sums = [S::zero(); SUMS];
        let mut i = 0;
        while i + SUMS * S::LANES <= c {
            for (t, s) in sums.iter_mut().enumerate() {
                *s = S::add(*s, T::load::<S>(x.add(i + t * S::LANES)));
            }
            i += SUMS * S::LANES;
        }
        while i < c {
            let n = S::LANES.min(c - i);
            sums[0] = S::add(sums[0], T::load_n::<S>(x.add(i), n));
            i += n;
        }
        total::<S>(sums)
    }
}

/// Σ (x − shift) and Σ (x − shift)².
///
/// # Safety
/// x points at c elements.
#[inline(always)]
pub(crate) unsafe fn moments<S: Simd, T: Lane>(x: *const T, c: usize, shift: f32) -> (f32, f32) {
    // SAFETY: the caller's promise; the loops end inside c; no tier has more than 16 lanes.
    unsafe {
        let m = S::splat(shift);
        let (mut sums, mut squares) = ([S::zero(); SUMS], [S::zero(); SUMS]);
        let mut i = 0;
        while i + SUMS * S::LANES <= c {
            for t in 0..SUMS {
                let v = S::sub(T::load::<S>(x.add(i + t * S::LANES)), m);
                sums[t] = S::add(sums[t], v);
                squares[t] = S::fma(v, v, squares[t]);
            }
            i += SUMS * S::LANES;
        }
        let shifts = [shift; 16];
        while i < c {
            let n = S::LANES.min(c - i);
            // Lanes beyond the row read 0 on both sides.
            let v = S::sub(T::load_n::<S>(x.add(i), n), S::load_n(shifts.as_ptr(), n));
            sums[0] = S::add(sums[0], v);
            squares[0] = S::fma(v, v, squares[0]);
            i += n;
        }
        (total::<S>(sums), total::<S>(squares))
    }
}

/// Σ x².
///
/// # Safety
/// x points at c elements.
#[inline(always)]
pub(crate) unsafe fn sum_of_squares<S: Simd, T: Lane>(x: *const T, c: usize) -> f32 {
    // SAFETY: the caller's promise; the loops end inside c.
    unsafe {
        let mut sums = [S::zero(); SUMS];
        let mut i = 0;
        while i + SUMS * S::LANES <= c {
            for (t, s) in sums.iter_mut().enumerate() {
                let v = T::load::<S>(x.add(i + t * S::LANES));
                *s = S::fma(v, v, *s);
            }
            i += SUMS * S::LANES;
        }
        while i < c {
            let n = S::LANES.min(c - i);
            let v = T::load_n::<S>(x.add(i), n);
            sums[0] = S::fma(v, v, sums[0]);
            i += n;
        }
        total::<S>(sums)
    }
}

/// # Safety
/// The walk's offsets plus a row stay inside x and out; affine holds a parameter row for each row; nobody else touches
/// these rows of out. `far`: whether to store past the caches.
#[inline(always)]
unsafe fn layer_norm_rows<S: Simd, T: Lane>(
    walk: &Walk<2>,
    rows: Range<usize>,
    x: *const T,
    affine: &RowAffine<'_>,
    eps: f32,
    out: *mut T,
    far: bool,
) {
    let c = walk.len;
    for (row, [xo, oo]) in walk.iter(rows) {
        let parameter = row / affine.rows_each * c;
        // SAFETY: the caller's promise.
        unsafe {
            let (x, out) = (x.add(xo), out.add(oo));
            let (gain, bias) = (
                affine.gain.as_ptr().add(parameter),
                affine.bias.as_ptr().add(parameter),
            );
            // The mean of an eighth of the row is at most √8 standard deviations from that of all, so sums about it cancel
            // little; what it is off by comes out as the rest's mean.
            let part = c.div_ceil(8).next_multiple_of(SUMS * S::LANES).min(c);
            let mean = sum::<S, T>(x, part) / part as f32;
            let (rest, squares) = moments::<S, T>(x, c, mean);
            let off = rest / c as f32;
            let rstd = 1.0 / (squares / c as f32 - off * off + eps).sqrt();
            let (m, r, o) = (S::splat(mean), S::splat(rstd), S::splat(-off * rstd));
            let far = far && out.addr().is_multiple_of(S::LANES * size_of::<T>());
            let mut i = 0;
            while i + S::LANES <= c {
                let v = S::fma(S::sub(T::load::<S>(x.add(i)), m), r, o);
                let v = S::fma(v, S::load(gain.add(i)), S::load(bias.add(i)));
                if far {
                    T::stream::<S>(out.add(i), v);
                } else {
                    T::store::<S>(out.add(i), v);
                }
                i += S::LANES;
            }
            if i < c {
                let n = c - i;
                let v = S::fma(S::sub(T::load_n::<S>(x.add(i), n), m), r, o);
                let v = S::fma(v, S::load_n(gain.add(i), n), S::load_n(bias.add(i), n));
                T::store_n::<S>(out.add(i), n, v);
            }
        }
    }
    if far {
        // SAFETY: the caller has the tier.
        unsafe { S::fence() };
    }
}
tiered!(fn run_layer_norm[T: Lane][T](walk: &Walk<2>, rows: Range<usize>, x: *const T, affine: &RowAffine<'_>, eps: f32,
    out: *mut T, far: bool) = layer_norm_rows);

/// # Safety
/// As [`layer_norm_rows`]'s; gain is a row.
#[inline(always)]
unsafe fn rms_norm_rows<S: Simd, T: Lane>(
    walk: &Walk<2>,
    rows: Range<usize>,
    x: *const T,
    gain: &[f32],
    eps: f32,
    out: *mut T,
) {
    let (c, gain) = (walk.len, gain.as_ptr());
    for (_, [xo, oo]) in walk.iter(rows) {
        // SAFETY: the caller's promise.
        unsafe {
            let (x, out) = (x.add(xo), out.add(oo));
            let r = S::splat(1.0 / (sum_of_squares::<S, T>(x, c) / c as f32 + eps).sqrt());
            let mut i = 0;
            while i + S::LANES <= c {
                let v = S::mul(S::mul(T::load::<S>(x.add(i)), r), S::load(gain.add(i)));
                T::store::<S>(out.add(i), v);
                i += S::LANES;
            }
            if i < c {
                let n = c - i;
                let v = S::mul(T::load_n::<S>(x.add(i), n), r);
                T::store_n::<S>(out.add(i), n, S::mul(v, S::load_n(gain.add(i), n)));
            }
        }
    }
}
tiered!(fn run_rms_norm[T: Lane][T](walk: &Walk<2>, rows: Range<usize>, x: *const T, gain: &[f32], eps: f32,
    out: *mut T) = rms_norm_rows);
