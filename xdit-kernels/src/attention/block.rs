//! One block of query rows against one block of keys: scores, online softmax, weighted values.

use super::{
    lanes::{Lanes, Product},
    operands::{AttnParameters, KeyBlock, QueryRows, QueryTile},
    pack::{Words, exchange, panel_width},
    scratch::Prefetcher,
    softmax::{mask, softmax, visible},
    tile::{self, KEYS},
};
use crate::simd::{Lane, tiered, transpose::MAX_LANES};

/// Tiles for rows first..first + n, zeroed sums, and the queries packed.
///
/// # Safety
/// `query(r)` points at d elements for each of those rows.
#[inline(always)]
unsafe fn start<S: Lanes, W: Words>(
    rows: &mut QueryRows,
    parameters: &AttnParameters<'_>,
    first: usize,
    n: usize,
    query: &(dyn Fn(usize) -> *const W::T + Sync),
) {
    rows.tiles.clear();
    let (mut done, mut at) = (0, 0);
    while done < n {
        let height = tile::height::<S>(n - done);
        let count = height.min(n - done);
        rows.tiles.push(QueryTile {
            first: first + done,
            rows: count,
            height,
            at,
        });
        (done, at) = (done + count, at + height);
    }
    rows.width = parameters.d.next_multiple_of(S::LANES);
    let words = W::count(parameters.d, S::PAIR_GROUP);
    rows.weights.reserve(S::MR * KEYS / 2);
    rows.scores.reserve(S::MR * KEYS);
    rows.q.reserve(at * words);
    rows.out.fill(at * rows.width, 0.0);
    rows.max.fill(at, f32::NEG_INFINITY);
    rows.sum.fill(at, 0.0);
    for tile in &rows.tiles {
        let mut queries = [std::ptr::null(); MAX_LANES];
        for (i, q) in queries.iter_mut().enumerate().take(tile.rows) {
            *q = query(tile.first + i);
        }
        // SAFETY: each query has d elements; the tile's words, `height` ≤ MR ≤ LANES a step, lie in q from `at` on.
        unsafe {
            let dst = rows.q.as_mut_ptr().add(tile.at * words);
            exchange::<S, W>(
                &queries[..tile.rows],
                parameters.d,
                dst,
                tile.height,
                tile.height,
            );
        }
    }
}
tiered!(pub(super) fn start_rows[W: Words][W](rows: &mut QueryRows, parameters: &AttnParameters<'_>, first: usize, n: usize, query: &(dyn Fn(usize) -> *const W::T + Sync)) = start);

/// Adds a block of keys and values to the rows' running sums, and prefetches the lines `ahead` meanwhile.
///
/// # Safety
/// `rows` comes from [`start_rows`] on the same tier with pairs as `P` has them; the block's pointers hold what
/// `pack` writes for `len` ≤ `KEYS` keys (`keys` and `seen` from the block's first key on, `values` too, in panels of
/// `value_rows`); the bias covers the rows and keys.
#[inline(always)]
unsafe fn attend<S: Lanes, P: Product, const DEGREE: usize>(
    rows: &mut QueryRows,
    parameters: &AttnParameters<'_>,
    block: &KeyBlock,
    ahead: &mut [Prefetcher; 2],
) {
    let words = P::words::<S>(parameters.d);
    let stored = block.len.next_multiple_of(S::LANES);
    let scores = rows.scores.as_mut_ptr();
    for t in 0..rows.tiles.len() {
        let tile = rows.tiles[t];
        let len = visible(parameters, &tile, block);
        if len == 0 {
            continue;
        }
        // SAFETY: a panel of keys starts after x · words words; it is as wide as `pack` made it, and so are the scores
        // written, within the KEYS columns of their tile. `out` has `height` rows of `width` from `tile.at` on. Values
        // are read in rows value_first.. + len of each panel.
        unsafe {
            let q = rows.q.as_ptr().add(tile.at * words);
            let mut x = 0;
            while x < len {
                let w = panel_width::<S>(stored - x);
                let keys = block.keys.add(x * words);
                tile::scores::<S, P>(tile.height, w, words, q, keys, scores.add(x));
                x += w;
                ahead[0].step();
            }
            let scale = mask::<S>(parameters, &tile, block, len, scores);
            let weights = if P::WORD == 1 {
                scores
            } else {
                rows.weights.as_mut_ptr()
            };
            let (max, sum) = (
                &mut rows.max.as_mut_slice()[tile.at..],
                &mut rows.sum.as_mut_slice()[tile.at..],
            );
            let rescale =
                softmax::<S, P, DEGREE>(scores, tile.height, len, scale, max, sum, weights);
            let n = len.div_ceil(P::WORD);
            let mut c = 0;
            while c < rows.width {
                let w = panel_width::<S>(rows.width - c);
                let values = block
                    .values
                    .add(c * (block.value_rows / P::WORD) + block.value_first / P::WORD * w);
                let out = rows.out.as_mut_ptr().add(tile.at * rows.width + c);
                tile::weighted_sum::<S, P>(
                    tile.height,
                    w,
                    n,
                    weights,
                    values,
                    rescale.as_ptr(),
                    out,
                    rows.width,
                );
                c += w;
                ahead[1].step();
            }
        }
    }
}
tiered!(pub(super) fn attend_block[P: Product, const DEGREE: usize][P, DEGREE](rows: &mut QueryRows, parameters: &AttnParameters<'_>, block: &KeyBlock, ahead: &mut [Prefetcher; 2]) = attend);

/// Writes each row divided by its sum to where `to` says, with the log of its denominator; a row that has seen no key is
/// 0 and −∞.
///
/// # Safety
/// `to(r)` gives places for d elements and for one f32 for each row; `rows` comes from [`start_rows`] on this tier.
#[inline(always)]
unsafe fn finish<S: Lanes, T: Lane>(
    rows: &QueryRows,
    d: usize,
    to: &(dyn Fn(usize) -> (*mut T, *mut f32) + Sync),
) {
    for tile in &rows.tiles {
        for i in 0..tile.rows {
            let at = tile.at + i;
            let (dst, lse) = to(tile.first + i);
            let (max, sum) = (rows.max.as_slice()[at], rows.sum.as_slice()[at]);
            let factor = 1.0 / sum;
            let mut x = 0;
            while x < d {
                // SAFETY: the row has `width` ≥ x + LANES numbers; n elements from x on are inside d.
                unsafe {
                    let src = rows.out.as_ptr().add(at * rows.width + x);
                    // NaN is not 0 and stays.
                    let v = if sum == 0.0 {
                        S::zero()
                    } else {
                        S::mul(S::load(src), S::splat(factor))
                    };
                    let n = S::LANES.min(d - x);
                    if n == S::LANES {
                        T::store::<S>(dst.add(x), v);
                    } else {
                        T::store_n::<S>(dst.add(x), n, v);
                    }
                }
                x += S::LANES;
            }
            // SAFETY: the caller's promise.
            unsafe { lse.write(log_sum(max, sum)) };
        }
    }
}
tiered!(pub(super) fn finish_rows[T: Lane][T](rows: &QueryRows, d: usize, to: &(dyn Fn(usize) -> (*mut T, *mut f32) + Sync)) = finish);

/// ln of a row's denominator: `max` is in powers of 2, `sum` relative to it.
fn log_sum(max: f32, sum: f32) -> f32 {
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    ((f64::from(shift) + f64::from(sum).log2()) * std::f64::consts::LN_2) as f32
}
