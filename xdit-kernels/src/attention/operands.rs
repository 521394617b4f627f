//! What a task works on: its query rows, a block of keys, and the parameters of the call.

use super::scratch::AlignedFloats;
use crate::View;

/// Some query rows and their running sums, to which one block of keys after another is added.
///
/// A row is (group, query): the heads that share a kv head lie one after another, so row r is query r % lq.
pub(super) struct QueryRows {
    pub(super) tiles: Vec<QueryTile>,
    /// Queries, packed per tile as [words of d][height].
    pub(super) q: AlignedFloats,
    /// Scores of one tile: [MR][KEYS].
    pub(super) scores: AlignedFloats,
    /// Their weights if they are pairs of bf16, [MR][KEYS / 2] words; else they take the scores' place.
    pub(super) weights: AlignedFloats,
    /// Weighted sums of values, [rows of all tiles][width].
    pub(super) out: AlignedFloats,
    /// d rounded up to a vector.
    pub(super) width: usize,
    /// Of each row: the largest score so far (times log2 e), and the sum of the weights relative to it.
    pub(super) max: AlignedFloats,
    pub(super) sum: AlignedFloats,
}

/// A few rows that go through the matrix tile together.
#[derive(Clone, Copy)]
pub(super) struct QueryTile {
    /// Index of the first row among the rows of the kv head.
    pub(super) first: usize,
    /// How many there are; the tile may be higher, with rows of zeros.
    pub(super) rows: usize,
    pub(super) height: usize,
    /// Place of the first row in `QueryRows::out`, `max` and `sum`; times the words of d, in `QueryRows::q`.
    pub(super) at: usize,
}

/// What all tasks of a call share.
pub(super) struct AttnParameters<'a> {
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
    pub(super) view: View<'a>,
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

impl QueryRows {
    pub(super) const fn empty() -> Self {
        Self {
            tiles: Vec::new(),
            q: AlignedFloats::new(),
            scores: AlignedFloats::new(),
            weights: AlignedFloats::new(),
            out: AlignedFloats::new(),
            width: 0,
            max: AlignedFloats::new(),
            sum: AlignedFloats::new(),
        }
    }
}
