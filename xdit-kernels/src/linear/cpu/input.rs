//! Packs the input of a linear layer for the register tile: panels of MR rows, k by k.

use super::row_offsets::RowOffsets;
use crate::{
    Result, Tensor, Tier, View,
    dtype::FloatType,
    simd::{
        Lane,
        microkernel::{MAX_MR, Micro, Pair, pair_group},
        tiered,
        transpose::{MAX_LANES, Transpose, exchange_fours},
    },
};
use half::{bf16, f16};

/// Inputs that stand side by side along k.
pub(super) struct Input<'a> {
    parts: Vec<InputPart<'a>>,
    count: usize,
}

/// One of the inputs: `k` columns from column `start` of the whole.
struct InputPart<'a> {
    data: InputData<'a>,
    dtype: FloatType,
    rows: RowOffsets,
    start: usize,
    k: usize,
}

/// Borrowed as it is, or copied so that the elements of a row are adjacent.
enum InputData<'a> {
    Borrowed(View<'a>),
    Copied(Tensor),
}

impl InputPart<'_> {
    fn view(&self) -> View<'_> {
        match &self.data {
            InputData::Borrowed(view) => *view,
            InputData::Copied(tensor) => tensor.view(),
        }
    }

    /// Addresses of rows `row .. row + rows`; null behind them.
    ///
    /// # Safety
    /// The part is of dtype T and has these rows, at most MAX_MR.
    unsafe fn row_starts<T>(&self, row: usize, rows: usize) -> [*const T; MAX_MR] {
        let view = self.view();
        let mut starts = [std::ptr::null(); MAX_MR];
        for (i, start) in starts.iter_mut().enumerate().take(rows) {
            // SAFETY: the row exists, so its offset is inside the view.
            *start = unsafe { view.ptr().cast::<T>().add(self.rows.offset(row + i)) };
        }
        starts
    }
}

impl<'a> Input<'a> {
    /// The caller has checked that there is an input, that all dims but the last are equal, and that the last dims sum to a k.
    pub(super) fn new(x: &[View<'a>]) -> Result<Self> {
        let mut parts = Vec::with_capacity(x.len());
        let mut start = 0;
        for &view in x {
            let last = view.ndim() - 1;
            let k = view.dim(last);
            let data = if view.strides()[last] == 1 || k < 2 {
                InputData::Borrowed(view)
            } else {
                InputData::Copied(view.to_tensor()?)
            };
            let dtype = view.dtype().float("linear")?;
            let rows = match &data {
                InputData::Borrowed(view) => RowOffsets::leading(view.shape(), view.strides()),
                InputData::Copied(copy) => RowOffsets::leading(copy.shape(), copy.view().strides()),
            };
            parts.push(InputPart {
                data,
                dtype,
                rows,
                start,
                k,
            });
            start += k;
        }
        let lead = x.first().and_then(|x| x.shape().split_last());
        Ok(Self {
            parts,
            count: lead.map_or(0, |(_, lead)| lead.iter().product()),
        })
    }

    /// Number of rows.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether every part is bf16.
    pub(super) fn is_bf16(&self) -> bool {
        self.parts.iter().all(|p| p.dtype == FloatType::BF16)
    }
}

/// What a panel of the packed input holds: rows `row .. row + rows`, and zeros up to `mr` rows and to `deep` k's.
#[derive(Clone, Copy)]
pub(super) struct InputPanel {
    pub(super) tier: Tier,
    pub(super) row: usize,
    pub(super) rows: usize,
    /// The tier's MR.
    pub(super) mr: usize,
    pub(super) deep: usize,
}

/// A word of the packed input: one element in f32, or a pair of bf16.
pub(super) trait PackedWord: Copy + Send + Sync {
    /// k's in a word.
    const KS: usize;
    /// Packs a panel as `[deep / KS][mr]` words, pairs in the tier's groups.
    ///
    /// # Safety
    /// The panel's rows exist, at most `mr` of them; `out` has room for `deep / KS · mr` words that nobody else touches, `deep`
    /// is at least k. For pairs, every part is bf16, and `deep` is a multiple of a group.
    unsafe fn pack(input: &Input<'_>, panel: InputPanel, out: *mut Self);
}

impl PackedWord for f32 {
    const KS: usize = 1;
    unsafe fn pack(input: &Input<'_>, panel: InputPanel, out: *mut Self) {
        let InputPanel { mr, deep, .. } = panel;
        let mut end = 0;
        for part in &input.parts {
            // SAFETY: the caller's promise: the part's columns are inside the panel.
            unsafe {
                let out = out.add(part.start * mr);
                match part.dtype {
                    FloatType::F32 => pack_part::<Self>(panel, part, out),
                    FloatType::F16 => pack_part::<f16>(panel, part, out),
                    FloatType::BF16 => pack_part::<bf16>(panel, part, out),
                }
            }
            end = part.start + part.k;
        }
        for k in end..deep {
            for i in 0..mr {
                // SAFETY: k < deep, i < mr.
                unsafe { out.add(k * mr + i).write(0.0) };
            }
        }
    }
}

impl PackedWord for Pair {
    const KS: usize = 2;
    unsafe fn pack(input: &Input<'_>, panel: InputPanel, out: *mut Self) {
        let InputPanel {
            tier,
            row,
            rows,
            mr,
            deep,
        } = panel;
        // bf16 of a row in a group: element (i, k) of the panel is number k % long of group (k / long) · mr + i.
        let long = 2 * pair_group(tier);
        let put = |i: usize, k: usize, x: bf16| {
            // SAFETY: i < mr, k < deep, so it is inside the panel as the caller promises.
            unsafe {
                out.cast::<bf16>()
                    .add((k / long * mr + i) * long + k % long)
                    .write(x)
            };
        };
        let mut end = 0;
        for part in &input.parts {
            // SAFETY: the caller's promise: the rows exist.
            let src = unsafe { part.row_starts::<bf16>(row, rows) };
            // Words that whole groups (or, of pairs, vectors) take; their bits pass unchanged.
            let words = match (part.start.is_multiple_of(long), long) {
                (false, _) => 0,
                (true, 2) => part.k / 2 / MAX_LANES * MAX_LANES,
                (true, _) => part.k / long * 2,
            };
            // SAFETY: each row has `words` pairs, read by vectors at any alignment since of pairs `words` is a multiple of
            // LANES; the panel has room for them from pair start / 2.
            unsafe {
                let out = out.add(part.start / 2 * mr);
                if long == 2 {
                    let src = src.map(<*const bf16>::cast);
                    interleave::<f32>(tier, &src[..rows], words, out.cast());
                } else {
                    exchange_fours(&src[..rows], 2 * words, out.cast(), mr, mr);
                }
            };
            for k in 2 * words..part.k {
                for (i, src) in src.iter().enumerate().take(mr) {
                    let x = if i < rows {
                        // SAFETY: row i is there and has part.k elements.
                        unsafe { *src.add(k) }
                    } else {
                        bf16::ZERO
                    };
                    put(i, part.start + k, x);
                }
            }
            end = part.start + part.k;
        }
        for k in end..deep {
            (0..mr).for_each(|i| put(i, k, bf16::ZERO));
        }
    }
}

/// # Safety
/// As [`PackedWord::pack`]'s; the part is of dtype T, and `out` its place in the panel.
unsafe fn pack_part<T: Lane>(panel: InputPanel, part: &InputPart<'_>, out: *mut f32) {
    // SAFETY: the caller's promise.
    let src = unsafe { part.row_starts::<T>(panel.row, panel.rows) };
    // SAFETY: each pointer starts a row of part.k elements; the rest is the caller's promise.
    unsafe { interleave::<T>(panel.tier, &src[..panel.rows], part.k, out) }
}

/// `out[k·MR + i] = rows[i][k]`, widened; 0 where there is no row i.
///
/// # Safety
/// Each row has `k` elements; `out` has room for `k · MR`, there are at most MR rows.
#[inline(always)]
unsafe fn interleave_body<S: Micro + Transpose, T: Lane>(
    rows: &[*const T],
    k: usize,
    out: *mut f32,
) {
    let mut at = 0;
    // Squares of a full panel that others follow: whole stores, whose lanes beyond MR the next lines overwrite. A masked
    // store takes several times as long.
    if rows.len() == S::MR {
        while (S::LANES - 1) * S::MR + S::LANES <= (k - at) * S::MR {
            // SAFETY: LANES elements from `at` are inside each row, and the last line's store ends inside the panel.
            unsafe {
                let mut square = [S::zero(); MAX_LANES];
                for (i, line) in square.iter_mut().enumerate().take(S::MR) {
                    *line = T::load::<S>(rows.get_unchecked(i).add(at));
                }
                S::transpose(&mut square);
                for (j, &line) in square.iter().enumerate().take(S::LANES) {
                    S::store(out.add((at + j) * S::MR), line);
                }
            }
            at += S::LANES;
        }
    }
    while at < k {
        let n = S::LANES.min(k - at);
        // SAFETY: n elements from `at` are inside each row, n lines of MR from line `at` inside the panel.
        unsafe {
            let mut square = [S::zero(); MAX_LANES];
            for (&row, line) in rows.iter().zip(&mut square) {
                let p = row.add(at);
                *line = if n == S::LANES {
                    T::load::<S>(p)
                } else {
                    T::load_n::<S>(p, n)
                };
            }
            S::transpose(&mut square);
            for (j, &line) in square.iter().enumerate().take(n) {
                S::store_n(out.add((at + j) * S::MR), S::MR, line);
            }
        }
        at += n;
    }
}
tiered!(fn interleave[T: Lane][T](rows: &[*const T], k: usize, out: *mut f32) = interleave_body);
