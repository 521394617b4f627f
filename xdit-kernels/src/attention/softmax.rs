//! From scores to weights: masks and the online softmax.

use super::{
    block::{Job, KeyBlock, Tile},
    lanes::{Lanes, Product, exp2},
    tile::KEYS,
};
use crate::simd::Lane;
use half::bf16;

/// How many keys of the block any row of the tile sees under the causal mask.
pub(super) fn visible(job: &Job<'_>, tile: &Tile, block: &KeyBlock) -> usize {
    if !job.causal {
        return block.len;
    }
    let last = (tile.first..tile.first + tile.rows)
        .map(|r| r % job.lq)
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
    job: &Job<'_>,
    tile: &Tile,
    block: &KeyBlock,
    len: usize,
    scores: *mut f32,
) -> f32 {
    // A negative scale would turn the maximum into a minimum, and 0 · −∞ is NaN: such a scale is applied here.
    let apply = job.bias.is_some() || job.scale <= 0.0;
    for i in 0..tile.rows {
        let r = tile.first + i;
        let query = r % job.lq;
        // SAFETY: the bias has an element for this batch, head, query and key first + x < first + len; `seen` has one
        // for each key of the block, and only lanes below len are read.
        unsafe {
            let row = scores.add(i * KEYS);
            if apply {
                let bias = job.bias.as_ref().map(|bias| {
                    let head = block.kv_head * job.group + r / job.lq;
                    let [b, h, q] = bias.steps;
                    let at = block.batch * b + head * h + query * q + block.first;
                    bias.view.ptr().cast::<f32>().add(at)
                });
                let scale = S::splat(job.scale);
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
            let own = if job.causal {
                (query + 1).saturating_sub(block.first).min(len)
            } else {
                len
            };
            for x in own..len.next_multiple_of(S::LANES) {
                row.add(x).write(f32::NEG_INFINITY);
            }
        }
    }
    if apply { 1.0 } else { job.scale }
}

/// Turns a row of scores into weights 2^(score · scale − max), keeps the running maximum and sum, and returns the factor
/// by which what was summed under the old maximum shrinks.
///
/// # Safety
/// `row` holds `len` scores rounded up to a vector, those from `len` on −∞; `weights` is writable for as many (as bf16
/// if `P` pairs them).
#[inline(always)]
pub(super) unsafe fn softmax<S: Lanes, P: Product, const DEGREE: usize>(
    row: *const f32,
    len: usize,
    scale: f32,
    max: &mut f32,
    sum: &mut f32,
    weights: *mut f32,
) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut top = S::splat(f32::NEG_INFINITY);
        let mut x = 0;
        while x < len {
            top = S::max(top, S::load(row.add(x)));
            x += S::LANES;
        }
        let old = *max;
        let new = old.max(S::max_lane(top) * scale);
        // A row that has seen no key yet: every weight is 2^−∞.
        let shift = if new == f32::NEG_INFINITY { 0.0 } else { new };
        let (scale, down) = (S::splat(scale), S::splat(-shift));
        let mut total = S::zero();
        let mut x = 0;
        while x < len {
            let w = exp2::<S, DEGREE>(S::fma(S::load(row.add(x)), scale, down));
            total = S::add(total, w);
            if P::WORD == 2 {
                bf16::store::<S>(weights.cast::<bf16>().add(x), w);
            } else {
                S::store(weights.add(x), w);
            }
            x += S::LANES;
        }
        let shrink = if new == old {
            1.0
        } else {
            (old - shift).exp2()
        };
        *sum = *sum * shrink + S::sum(total);
        *max = new;
        shrink
    }
}
