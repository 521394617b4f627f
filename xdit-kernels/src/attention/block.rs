//! One block of query rows against one block of keys: scores, online softmax, weighted values.

use super::{
    lanes::{Lanes, MAX_LANES, Product},
    pack::{Words, exchange, panel_width},
    scratch::{Ahead, Floats},
    softmax::{mask, softmax, visible},
    tile::{self, KEYS},
};
use crate::simd::{Lane, tiered};

/// Some query rows while the keys pass by.
///
/// A row is (group, query): the heads that share a kv head lie one after another, so row r is query r % lq.
pub(super) struct Rows {
    pub(super) tiles: Vec<Tile>,
    /// Queries, packed per tile as [words of d][height].
    pub(super) q: Floats,
    /// Scores of one tile: [MR][KEYS].
    scores: Floats,
    /// Their weights if they are pairs of bf16, [MR][KEYS / 2] words; else they take the scores' place.
    weights: Floats,
    /// Weighted sums of values, [rows of all tiles][width].
    pub(super) out: Floats,
    /// d rounded up to a vector.
    pub(super) width: usize,
    /// Of each row: the largest score so far (times log2 e), and the sum of the weights relative to it.
    pub(super) max: Floats,
    pub(super) sum: Floats,
}

/// A few rows that go through the matrix tile together.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Index of the first row among the rows of the kv head.
    pub(super) first: usize,
    /// How many there are; the tile may be higher, with rows of zeros.
    pub(super) rows: usize,
    pub(super) height: usize,
    /// Place of the first row in `Rows::out`, `max` and `sum`; times the words of d, in `Rows::q`.
    pub(super) at: usize,
}

/// What all tasks of a call share.
pub(super) struct Job<'a> {
    pub(super) lq: usize,
    pub(super) d: usize,
    /// Heads of q that share a kv head.
    pub(super) group: usize,
    /// Scale times log2 e: scores are exponents of 2.
    pub(super) scale: f32,
    pub(super) causal: bool,
    pub(super) bias: Option<Bias<'a>>,
}

/// The additive bias, f32 with a last stride of 1.
pub(super) struct Bias<'a> {
    pub(super) view: crate::View<'a>,
    /// Strides of batch, head and query, 0 where one counts for all.
    pub(super) steps: [usize; 3],
}

/// A block of at most `KEYS` packed keys and values.
pub(super) struct KeyBlock {
    pub(super) batch: usize,
    pub(super) kv_head: usize,
    /// Index of the first key.
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) keys: *const f32,
    pub(super) values: *const f32,
    /// Row of the first value in its panels.
    pub(super) value_first: usize,
    /// Rows from one panel of values to the next.
    pub(super) value_rows: usize,
    /// For each key 1 where it is seen, else 0; null if all are.
    pub(super) seen: *const f32,
}

impl Rows {
    pub(super) const fn empty() -> Self {
        Self {
            tiles: Vec::new(),
            q: Floats::new(),
            scores: Floats::new(),
            weights: Floats::new(),
            out: Floats::new(),
            width: 0,
            max: Floats::new(),
            sum: Floats::new(),
        }
    }
}

/// Tiles for rows first..first + n, zeroed sums, and the queries packed.
///
/// # Safety
/// `query(r)` points at d elements for each of those rows.
#[inline(always)]
unsafe fn start<S: Lanes, W: Words>(
    rows: &mut Rows,
    job: &Job<'_>,
    first: usize,
    n: usize,
    query: &(dyn Fn(usize) -> *const W::T + Sync),
) {
    rows.tiles.clear();
    let (mut done, mut at) = (0, 0);
    while done < n {
        let height = tile::height::<S>(n - done);
        let count = height.min(n - done);
        rows.tiles.push(Tile {
            first: first + done,
            rows: count,
            height,
            at,
        });
        (done, at) = (done + count, at + height);
    }
    rows.width = job.d.next_multiple_of(S::LANES);
    let words = W::count(job.d);
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
            exchange::<S, W>(&queries[..tile.rows], job.d, dst, tile.height, tile.height);
        }
    }
}
tiered!(pub(super) fn start_rows[W: Words][W](rows: &mut Rows, job: &Job<'_>, first: usize, n: usize, query: &(dyn Fn(usize) -> *const W::T + Sync)) = start);

/// Lets a block of keys pass by the rows, and asks for the lines `ahead` meanwhile.
///
/// # Safety
/// `rows` comes from [`start_rows`] on the same tier with pairs as `P` has them; the block's pointers hold what
/// `pack` writes for `len` ≤ `KEYS` keys (`keys` and `seen` from the block's first key on, `values` too, in panels of
/// `value_rows`); the bias covers the rows and keys.
#[inline(always)]
unsafe fn attend<S: Lanes, P: Product, const DEGREE: usize>(
    rows: &mut Rows,
    job: &Job<'_>,
    block: &KeyBlock,
    ahead: &mut [Ahead; 2],
) {
    let words = job.d.div_ceil(P::WORD);
    let stored = block.len.next_multiple_of(S::LANES);
    let scores = rows.scores.as_mut_ptr();
    for t in 0..rows.tiles.len() {
        let tile = rows.tiles[t];
        let len = visible(job, &tile, block);
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
            let scale = mask::<S>(job, &tile, block, len, scores);
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
tiered!(pub(super) fn attend_block[P: Product, const DEGREE: usize][P, DEGREE](rows: &mut Rows, job: &Job<'_>, block: &KeyBlock, ahead: &mut [Ahead; 2]) = attend);

/// Writes each row divided by its sum to where `to` says, with the log of its denominator; a row that has seen no key is
/// 0 and −∞.
///
/// # Safety
/// `to(r)` gives places for d elements and for one f32 for each row; `rows` comes from [`start_rows`] on this tier.
#[inline(always)]
unsafe fn finish<S: Lanes, T: Lane>(
    rows: &Rows,
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
tiered!(pub(super) fn finish_rows[T: Lane][T](rows: &Rows, d: usize, to: &(dyn Fn(usize) -> (*mut T, *mut f32) + Sync)) = finish);

/// ln of a row's denominator: `max` is in powers of 2, `sum` relative to it.
fn log_sum(max: f32, sum: f32) -> f32 {
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    ((f64::from(shift) + f64::from(sum).log2()) * std::f64::consts::LN_2) as f32
}
