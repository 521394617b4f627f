//! From scores to weights: masks and the online softmax.

use super::{
    lanes::{Lanes, Product, exp2},
    operands::{AttnParameters, KeyBlock, QueryTile},
    tile::KEYS,
};
use crate::simd::{Lane, transpose::MAX_LANES};
use half::bf16;

/// How many keys of the block any row of the tile sees under the causal mask.
pub(super) fn visible(
    parameters: &AttnParameters<'_>,
    tile: &QueryTile,
    block: &KeyBlock,
) -> usize {
    if !parameters.causal {
        return block.len;
    }
    let last = (tile.first..tile.first + tile.rows)
        .map(|r| r % parameters.lq)
        .max()
        .unwrap_or(0);
    (last + 1).saturating_sub(block.first).min(block.len)
}

/// Applies bias and masks to a tile's scores and sets the columns from `len` to the end of the vector to −∞. Returns
/// the factor that is left to apply.
///
/// # Safety
/// `scores` holds the tile's scores, rows `KEYS` apart; the rest as for `attend_block`.
#[inline(always)]
pub(super) unsafe fn mask<S: Lanes>(
    parameters: &AttnParameters<'_>,
    tile: &QueryTile,
    block: &KeyBlock,
    len: usize,
    scores: *mut f32,
) -> f32 {
    // A negative scale would turn the maximum into a minimum, and 0 · −∞ is NaN: such a scale is applied here.
    let apply = parameters.bias.is_some() || parameters.scale <= 0.0;
    for i in 0..tile.rows {
        let r = tile.first + i;
        let query = r % parameters.lq;
        // SAFETY: the bias has an element for this batch, head, query and key first + x < first + len; `seen` has one
        // for each key of the block, and only lanes below len are read.
        unsafe {
            let row = scores.add(i * KEYS);
            if apply {
                let bias = parameters.bias.as_ref().map(|bias| {
                    let head = block.kv_head * parameters.group + r / parameters.lq;
                    let [b, h, q] = bias.steps;
                    let at = block.batch * b + head * h + query * q + block.first;
                    bias.view.ptr().cast::<f32>().add(at)
                });
                let scale = S::splat(parameters.scale);
                let log2_e = S::splat(std::f32::consts::LOG2_E);
                let mut x = 0;
                while x < len {
                    let n = S::LANES.min(len - x);
                    let mut s = S::mul(S::load_n(row.add(x), n), scale);
                    if let Some(bias) = bias {
                        s = S::fma(S::load_n(bias.add(x), n), log2_e, s);
                    }
                    S::store_n(row.add(x), n, s);
                    x += n;
                }
            }
            if !block.seen.is_null() {
                let hidden = S::splat(f32::NEG_INFINITY);
                let mut x = 0;
                while x < len {
                    let n = S::LANES.min(len - x);
                    let seen = S::load_n(block.seen.add(x), n);
                    let s = S::load_n(row.add(x), n);
                    S::store_n(row.add(x), n, S::select_gt(seen, S::zero(), s, hidden));
                    x += n;
                }
            }
            let own = if parameters.causal {
                (query + 1).saturating_sub(block.first).min(len)
            } else {
                len
            };
            for x in own..len.next_multiple_of(S::LANES) {
                row.add(x).write(f32::NEG_INFINITY);
            }
        }
    }
    if apply { 1.0 } else { parameters.scale }
}

/// Turns the scores of a tile's rows into weights 2^(score · scale − max), keeps each row's running maximum and sum, and
/// returns the factors by which what was summed under the old maxima shrinks.
///
/// # Safety
/// `scores` and `weights` are [height][KEYS] (half as many words of weights if `P` pairs them), of which `len` columns
/// rounded up to a vector count, those from `len` on −∞; they may be the same place if `P` does not pair; `max` and `sum` hold `height` ≤ `MR` rows.
#[inline(always)]
pub(super) unsafe fn softmax<S: Lanes, P: Product, const DEGREE: usize>(
    scores: *const f32,
    height: usize,
    len: usize,
    scale: f32,
    max: &mut [f32],
    sum: &mut [f32],
    weights: *mut f32,
) -> [f32; MAX_LANES] {
    let (max, sum) = (max[..height].as_mut_ptr(), sum[..height].as_mut_ptr());
    // Of each row: this block's maximum and sum, what is subtracted, and the factor.
    let mut tops = [f32::NEG_INFINITY; MAX_LANES];
    let mut totals = [0f32; MAX_LANES];
    let mut downs = [0f32; MAX_LANES];
    let mut shrinks = [0f32; MAX_LANES];
    // SAFETY: the caller's promise; the arrays hold MAX_LANES ≥ LANES ≥ MR numbers.
    unsafe {
        for (i, top) in tops.iter_mut().enumerate().take(height) {
            *top = row_max::<S>(scores.add(i * KEYS), len);
        }
        let factor = S::splat(scale);
        let lowest = S::splat(f32::NEG_INFINITY);
        let old = S::load_n(max, height);
        // A NaN is dropped here; the weights keep it.
        let new = S::max(S::mul(S::load(tops.as_ptr()), factor), old);
        // A row that has seen no key yet: every weight is 2^−∞, and so is the factor.
        let shift = S::select_gt(new, lowest, new, S::zero());
        let [shrink] = exp2::<S, 6, 1>([S::sub(old, shift)]);
        S::store(downs.as_mut_ptr(), S::sub(S::zero(), shift));
        S::store(shrinks.as_mut_ptr(), shrink);
        S::store_n(max, height, new);
        for (i, total) in totals.iter_mut().enumerate().take(height) {
            let row = scores.add(i * KEYS);
            let to = weights.add(i * (KEYS / P::WORD));
            *total = row_weights::<S, P, DEGREE>(row, len, factor, S::splat(downs[i]), to);
        }
        let total = S::fma(S::load_n(sum, height), shrink, S::load(totals.as_ptr()));
        S::store_n(sum, height, total);
    }
    shrinks
}

/// The largest of `len` scores (rounded up to a vector); NaN may hide numbers before it.
///
/// # Safety
/// As [`softmax`]'s.
#[inline(always)]
unsafe fn row_max<S: Lanes>(row: *const f32, len: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        // Four chains hide the latency.
        let mut tops = [S::splat(f32::NEG_INFINITY); 4];
        let mut x = 0;
        while x + 4 * S::LANES <= len {
            tops[0] = S::max(tops[0], S::load(row.add(x)));
            tops[1] = S::max(tops[1], S::load(row.add(x + S::LANES)));
            tops[2] = S::max(tops[2], S::load(row.add(x + 2 * S::LANES)));
            tops[3] = S::max(tops[3], S::load(row.add(x + 3 * S::LANES)));
            x += 4 * S::LANES;
        }
        while x < len {
            tops[0] = S::max(tops[0], S::load(row.add(x)));
            x += S::LANES;
        }
        let [a, b, c, d] = tops;
        S::max_lane(S::max(S::max(a, b), S::max(c, d)))
    }
}

/// Writes the weights of `len` scores (rounded up to a vector); returns their sum.
///
/// # Safety
/// As [`softmax`]'s.
#[inline(always)]
unsafe fn row_weights<S: Lanes, P: Product, const DEGREE: usize>(
    row: *const f32,
    len: usize,
    scale: S::V,
    down: S::V,
    weights: *mut f32,
) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut even, mut odd) = (S::zero(), S::zero());
        let mut x = 0;
        // Which sum a vector goes to depends on its place alone, not on `len`.
        while x + S::LANES < len {
            let [a, b] = weights_at::<S, P, DEGREE, 2>(row, x, scale, down, weights);
            (even, odd) = (S::add(even, a), S::add(odd, b));
            x += 2 * S::LANES;
        }
        if x < len {
            let [a] = weights_at::<S, P, DEGREE, 1>(row, x, scale, down, weights);
            even = S::add(even, a);
        }
        S::sum(S::add(even, odd))
    }
}

/// Writes the weights of the N vectors of scores from column x on; returns them.
///
/// # Safety
/// As [`softmax`]'s.
#[allow(
    clippy::needless_range_loop,
    reason = "iterators are inlined only with some settings of the compiler"
)]
#[inline(always)]
unsafe fn weights_at<S: Lanes, P: Product, const DEGREE: usize, const N: usize>(
    row: *const f32,
    x: usize,
    scale: S::V,
    down: S::V,
    weights: *mut f32,
) -> [S::V; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut w = [S::zero(); N];
        for j in 0..N {
            w[j] = S::fma(S::load(row.add(x + j * S::LANES)), scale, down);
        }
        let w = exp2::<S, DEGREE, N>(w);
        for j in 0..N {
            let x = x + j * S::LANES;
            if P::WORD == 2 {
                bf16::store::<S>(weights.cast::<bf16>().add(x), w[j]);
            } else {
                S::store(weights.add(x), w[j]);
            }
        }
        w
    }
}
