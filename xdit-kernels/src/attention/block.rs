//! One block of query rows against one block of keys: scores, online softmax, weighted values.

use super::{
    lanes::{Lanes, Product},
    pack::{pair, panel_width},
    softmax::{mask, softmax, visible},
    tile::{self, KEYS},
};
use crate::simd::{Lane, tiered};
use half::bf16;

/// Some query rows while the keys pass by.
///
/// A row is (group, query): the heads that share a kv head lie one after another, so row r is query r % lq.
pub(super) struct Rows {
    pub(super) tiles: Vec<Tile>,
    /// Queries, packed per tile as [words of d][height].
    pub(super) q: Vec<f32>,
    /// Scores, then weights, of one tile: [MR][KEYS].
    scores: Vec<f32>,
    /// Weights of one tile as pairs of bf16: [MR][KEYS / 2] words.
    pairs: Vec<f32>,
    /// Weighted sums of values, [rows of all tiles][width].
    pub(super) out: Vec<f32>,
    /// d rounded up to a vector.
    pub(super) width: usize,
    /// Of each row: the largest score so far (times log2 e), and the sum of the weights relative to it.
    pub(super) max: Vec<f32>,
    pub(super) sum: Vec<f32>,
    /// Of each row of a tile: what the sums so far are multiplied by.
    rescale: Vec<f32>,
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
            q: Vec::new(),
            scores: Vec::new(),
            pairs: Vec::new(),
            out: Vec::new(),
            width: 0,
            max: Vec::new(),
            sum: Vec::new(),
            rescale: Vec::new(),
        }
    }
}

/// Tiles for rows first..first + n, zeroed sums, and the queries packed.
///
/// # Safety
/// `query(r)` points at d elements for each of those rows.
#[inline(always)]
unsafe fn start<S: Lanes, T: Lane>(
    rows: &mut Rows,
    job: &Job<'_>,
    first: usize,
    n: usize,
    pairs: bool,
    query: &(dyn Fn(usize) -> *const u8 + Sync),
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
    let words = if pairs { job.d.div_ceil(2) } else { job.d };
    rows.scores.resize(S::MR * KEYS, 0.0);
    if pairs {
        rows.pairs.resize(S::MR * KEYS / 2, 0.0);
    }
    rows.rescale.resize(S::MR, 0.0);
    refill(&mut rows.q, at * words, 0.0);
    refill(&mut rows.out, at * rows.width, 0.0);
    refill(&mut rows.max, at, f32::NEG_INFINITY);
    refill(&mut rows.sum, at, 0.0);
    for tile in &rows.tiles {
        for i in 0..tile.rows {
            let packed = &mut rows.q[tile.at * words..][..words * tile.height];
            let src = query(tile.first + i).cast::<T>();
            for k in 0..words {
                // SAFETY: element k (2k and 2k + 1 of a pair, if it is below d) is inside the row.
                packed[k * tile.height + i] = unsafe {
                    if pairs {
                        let bits = src.cast::<bf16>();
                        let high = if 2 * k + 1 < job.d {
                            *bits.add(2 * k + 1)
                        } else {
                            bf16::ZERO
                        };
                        pair(*bits.add(2 * k), high)
                    } else {
                        (*src.add(k)).to_f32()
                    }
                };
            }
        }
    }
}
tiered!(pub(super) fn start_rows[T: Lane][T](rows: &mut Rows, job: &Job<'_>, first: usize, n: usize, pairs: bool, query: &(dyn Fn(usize) -> *const u8 + Sync)) = start);

fn refill(x: &mut Vec<f32>, len: usize, value: f32) {
    x.clear();
    x.resize(len, value);
}

/// Lets a block of keys pass by the rows.
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
            }
            let scale = mask::<S>(job, &tile, block, len, scores);
            for i in 0..tile.height {
                let pairs = rows.pairs.as_mut_ptr();
                let row = scores.add(i * KEYS);
                let (max, sum) = (&mut rows.max[tile.at + i], &mut rows.sum[tile.at + i]);
                let weights = if P::WORD == 2 {
                    pairs.add(i * KEYS / 2)
                } else {
                    row
                };
                rows.rescale[i] = softmax::<S, P, DEGREE>(row, len, scale, max, sum, weights);
            }
            let weights = if P::WORD == 2 {
                rows.pairs.as_ptr()
            } else {
                scores
            };
            let n = len.div_ceil(P::WORD);
            let rescale = rows.rescale.as_ptr();
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
                    rescale,
                    out,
                    rows.width,
                );
                c += w;
            }
        }
    }
}
tiered!(pub(super) fn attend_block[P: Product, const DEGREE: usize][P, DEGREE](rows: &mut Rows, job: &Job<'_>, block: &KeyBlock) = attend);

/// Writes row `at` divided by its sum to `dst`; zeros if it has seen no key.
///
/// # Safety
/// `dst` is writable for d elements; `rows` comes from [`start_rows`].
#[inline(always)]
unsafe fn finish<S: Lanes, T: Lane>(rows: &Rows, d: usize, at: usize, dst: *mut T) {
    let sum = rows.sum[at];
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
}
tiered!(pub(super) fn finish_row[T: Lane][T](rows: &Rows, d: usize, at: usize, dst: *mut T) = finish);
