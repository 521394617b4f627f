use super::options::{HeadNorm, QkNormRope};
use crate::{
    Result, View, ViewMut,
    dtype::by_float,
    norm::{moments, sum, sum_of_squares},
    rows::{Floats, Operand, Walk},
    simd::{Lane, Shared, Simd, tiered},
};
use std::ops::Range;

/// What a head row is divided by, and what is taken off it and added to it.
enum Norm<'a> {
    /// The row's length stays.
    None,
    Rms {
        eps: f32,
    },
    Layer {
        /// [d].
        bias: &'a [f32],
        eps: f32,
    },
}

/// What is done to each head row of one stream.
struct HeadRow<'a> {
    /// [d]; ones where the norm has no weight or there is no norm.
    gain: &'a [f32],
    norm: Norm<'a>,
    /// cos and sin, [l, d] each.
    rope: Option<(&'a [f32], &'a [f32])>,
    /// Head rows of one token.
    heads: usize,
    /// Tokens of one batch entry.
    tokens: usize,
}

/// As `rms_norm_rope_into` and `layer_norm_rope_into`; shapes are checked by the caller.
pub(super) fn one_stream(
    op: &'static str,
    x: View<'_>,
    (weight, bias): (Option<View<'_>>, Option<View<'_>>),
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
    out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let (l, h, d) = (x.dim(1), x.dim(2), x.dim(3));
    let gain = Floats::or(op, weight, d, 1.0)?;
    let bias = bias.map(|bias| Floats::new(op, bias, &[d])).transpose()?;
    let tables = tables(op, rope, l, d)?;
    let head = HeadRow {
        gain: &gain,
        norm: match &bias {
            Some(bias) => Norm::Layer { bias, eps },
            None => Norm::Rms { eps },
        },
        rope: tables.as_ref().map(|(cos, sin)| (&**cos, &**sin)),
        heads: h,
        tokens: l,
    };
    norm_rope(Operand::new(x, x.dtype())?.view(), &head, out)
}

/// As `qk_norm_rope_into`; shapes are checked by the caller.
pub(super) fn three_streams(
    qkv: View<'_>,
    options: &QkNormRope<'_>,
    [q, k, v]: [ViewMut<'_>; 3],
) -> Result<()> {
    const OP: &str = "qk_norm_rope";
    if qkv.numel() == 0 {
        return Ok(());
    }
    let (l, h, d) = (qkv.dim(1), qkv.dim(3), qkv.dim(4));
    let norms = [options.norm_q, options.norm_k];
    let gains = norms.map(|norm| {
        let weight = norm.map(|(HeadNorm::Rms(weight) | HeadNorm::Layer { weight, .. })| weight);
        Floats::or(OP, weight, d, 1.0)
    });
    let [gain_q, gain_k] = gains;
    let (gain_q, gain_k) = (gain_q?, gain_k?);
    let biases = norms.map(|norm| match norm {
        Some(HeadNorm::Layer { bias, .. }) => Floats::new(OP, bias, &[d]).map(Some),
        _ => Ok(None),
    });
    let [bias_q, bias_k] = biases;
    let (bias_q, bias_k) = (bias_q?, bias_k?);
    let tables = tables(OP, options.rope, l, d)?;
    let eps = options.eps;
    let head = |gain, norm: Option<HeadNorm<'_>>, bias| HeadRow {
        gain,
        norm: match (norm, bias) {
            (None, _) => Norm::None,
            (_, Some(bias)) => Norm::Layer { bias, eps },
            (_, None) => Norm::Rms { eps },
        },
        rope: tables.as_ref().map(|(cos, sin)| (&**cos, &**sin)),
        heads: h,
        tokens: l,
    };
    let qkv = Operand::new(qkv, qkv.dtype())?;
    let qkv = qkv.view();
    qk_norm_rope(
        [qkv.select(2, 0)?, qkv.select(2, 1)?, qkv.select(2, 2)?],
        [
            &head(&gain_q, options.norm_q, bias_q.as_deref()),
            &head(&gain_k, options.norm_k, bias_k.as_deref()),
        ],
        [q, k, v],
    )
}

type Tables<'a> = Option<(Floats<'a>, Floats<'a>)>;

/// The tables, which fit.
fn tables<'a>(
    op: &'static str,
    rope: Option<(View<'a>, View<'a>)>,
    l: usize,
    d: usize,
) -> Result<Tables<'a>> {
    let Some((cos, sin)) = rope else {
        return Ok(None);
    };
    Ok(Some((
        Floats::new(op, cos, &[l, d])?,
        Floats::new(op, sin, &[l, d])?,
    )))
}

/// out = rope(norm(x)), rows of [b, l, h, d]. Shapes and dtypes are checked by the caller.
fn norm_rope(x: View<'_>, head: &HeadRow<'_>, mut out: ViewMut<'_>) -> Result<()> {
    let walk = Walk::rows(x.shape(), [x.strides(), out.strides()]);
    by_float!("rope", x.dtype(), T => {
        let (tier, src) = (x.device().tier(), Shared(x.ptr().cast::<T>().cast_mut()));
        let dst = Shared(out.ptr().cast::<T>());
        walk.split_rows(2 * size_of::<T>(), |rows| {
            // SAFETY: the walk was made from both views' common shape; tasks get disjoint rows and `out` is exclusively
            // borrowed; the tables' lengths are checked by the caller.
            unsafe { run_norm_rope::<T>(tier, &walk, rows, src.ptr(), head, dst.ptr()) }
        });
    });
    Ok(())
}

/// q, k = rope(norm(·)), v copied, in one pass over the three parts of a fused projection.
fn qk_norm_rope(
    parts: [View<'_>; 3],
    heads: [&HeadRow<'_>; 2],
    mut outs: [ViewMut<'_>; 3],
) -> Result<()> {
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
    by_float!("rope", q.dtype(), T => {
        let tier = q.device().tier();
        let src = parts.map(|p| Shared(p.ptr().cast::<T>().cast_mut()));
        let dst = outs.each_mut().map(|o| Shared(o.ptr().cast::<T>()));
        walk.split_rows(6 * size_of::<T>(), |rows| {
            let (src, dst) = (src.each_ref().map(Shared::ptr), dst.each_ref().map(Shared::ptr));
            // SAFETY: as above, for three inputs and three outputs that the caller holds exclusively.
            unsafe { run_qk_norm_rope::<T>(tier, &walk, rows, src, heads, dst) }
        });
    });
    Ok(())
}

/// How the entries of a row become normalised ones: (x − mean)·scale + offset, times gain, plus bias; x·scale, times gain,
/// where `LAYER` is false.
struct Normed<S: Simd, const LAYER: bool> {
    mean: S::V,
    scale: S::V,
    offset: S::V,
}

impl<S: Simd, const LAYER: bool> Normed<S, LAYER> {
    /// # Safety
    /// As [`Simd`]'s.
    #[inline(always)]
    unsafe fn of(&self, x: S::V, gain: S::V, bias: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            match LAYER {
                true => {
                    let y = S::fma(S::sub(x, self.mean), self.scale, self.offset);
                    S::fma(y, gain, bias)
                }
                false => S::mul(S::mul(x, self.scale), gain),
            }
        }
    }
}

/// One head row: normalised, then each pair (y₀, y₁) turned: y₀·cos − y₁·sin, y₁·cos + y₀·sin.
///
/// # Safety
/// x and out point at d elements, d even if there is a rope; gain and the tables hold the row's entries, and so does bias
/// where `LAYER` is true.
#[inline(always)]
unsafe fn turned_row<S: Simd, T: Lane, const LAYER: bool>(
    x: *const T,
    d: usize,
    row: usize,
    (head, normed, bias): (&HeadRow<'_>, Normed<S, LAYER>, *const f32),
    out: *mut T,
) {
    // SAFETY: the caller's promise; LANES is even, so a pair never spans two vectors.
    unsafe {
        let gain = head.gain.as_ptr();
        let mut i = 0;
        if let Some((cos, sin)) = head.rope {
            let at = row / head.heads % head.tokens * d;
            let (cos, sin) = (cos.as_ptr().add(at), sin.as_ptr().add(at));
            while i + S::LANES <= d {
                let b = if LAYER {
                    S::load(bias.add(i))
                } else {
                    S::zero()
                };
                let y = normed.of(T::load::<S>(x.add(i)), S::load(gain.add(i)), b);
                let turned = S::mul(S::negate_even(S::swap_pairs(y)), S::load(sin.add(i)));
                T::store::<S>(out.add(i), S::fma(y, S::load(cos.add(i)), turned));
                i += S::LANES;
            }
            if i < d {
                let n = d - i;
                let b = if LAYER {
                    S::load_n(bias.add(i), n)
                } else {
                    S::zero()
                };
                let y = normed.of(T::load_n::<S>(x.add(i), n), S::load_n(gain.add(i), n), b);
                let turned = S::mul(S::negate_even(S::swap_pairs(y)), S::load_n(sin.add(i), n));
                T::store_n::<S>(out.add(i), n, S::fma(y, S::load_n(cos.add(i), n), turned));
            }
        } else {
            while i < d {
                let n = S::LANES.min(d - i);
                let b = if LAYER {
                    S::load_n(bias.add(i), n)
                } else {
                    S::zero()
                };
                let y = normed.of(T::load_n::<S>(x.add(i), n), S::load_n(gain.add(i), n), b);
                T::store_n::<S>(out.add(i), n, y);
                i += n;
            }
        }
    }
}

/// One head row through its norm and its rotation.
///
/// # Safety
/// As [`turned_row`]'s, with a bias of d elements in a layer norm.
#[inline(always)]
unsafe fn head_row<S: Simd, T: Lane>(
    x: *const T,
    d: usize,
    row: usize,
    head: &HeadRow<'_>,
    out: *mut T,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (mean, scale, offset, bias) = match head.norm {
            Norm::None => (0.0, 1.0, 0.0, None),
            Norm::Rms { eps } => {
                let square = sum_of_squares::<S, T>(x, d) / d as f32;
                (0.0, 1.0 / (square + eps).sqrt(), 0.0, None)
            }
            Norm::Layer { bias, eps } => {
                // What the mean is off by, rounded as it is, comes out as the rest's mean.
                let mean = sum::<S, T>(x, d) / d as f32;
                let (rest, squares) = moments::<S, T>(x, d, mean);
                let off = rest / d as f32;
                let scale = 1.0 / (squares / d as f32 - off * off + eps).sqrt();
                (mean, scale, -off * scale, Some(bias.as_ptr()))
            }
        };
        let (mean, scale, offset) = (S::splat(mean), S::splat(scale), S::splat(offset));
        match bias {
            Some(bias) => {
                let normed = Normed::<S, true> {
                    mean,
                    scale,
                    offset,
                };
                turned_row(x, d, row, (head, normed, bias), out);
            }
            None => {
                let normed = Normed::<S, false> {
                    mean,
                    scale,
                    offset,
                };
                turned_row(x, d, row, (head, normed, std::ptr::null()), out);
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
