//! One call of the kernel: its views, and what a task does with them.

use super::{
    block::{attend_block, finish_rows, start_rows},
    dims::Dims,
    input::AttnInput,
    lanes::{PairProduct, SingleProduct},
    operands::{AttnParameters, Bias, KeyBlock, QueryRows},
    pack::{Paired, Widened, Words, pack_keys, pack_values_pair, pack_values_single},
    scratch::{AlignedFloats, Prefetcher},
    seen::Seen,
    tile::KEYS,
};
use crate::{
    DType, Result, Tier, View, ViewMut,
    simd::{Lane, Shared, microkernel::pair_group},
};

/// One call of the kernel, for elements of type `T`.
pub(super) struct FlashCall<'a, T> {
    pub(super) dims: Dims,
    pub(super) tier: Tier,
    /// Whether products are of bf16 pairs.
    pairs: bool,
    pub(super) parameters: AttnParameters<'a>,
    pub(super) q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    seen: Seen,
    out: Shared<T>,
    /// Strides of batch, token and head.
    out_steps: [usize; 3],
    lse: Shared<f32>,
    lse_steps: [usize; 3],
}

impl<'a, T: Lane> FlashCall<'a, T> {
    pub(super) fn new(
        input: &AttnInput<'a>,
        dims: &Dims,
        mut out: ViewMut<'_>,
        mut lse: ViewMut<'_>,
    ) -> Result<Self> {
        let scale = input.scale.unwrap_or(1.0 / (dims.d as f32).sqrt());
        let three = |s: &[usize]| [s[0], s[1], s[2]];
        let tier = input.q.device().tier();
        Ok(Self {
            dims: *dims,
            tier,
            pairs: T::DTYPE == DType::BF16 && tier.multiplies_bf16(),
            parameters: AttnParameters {
                lq: dims.lq,
                d: dims.d,
                group: dims.h.checked_div(dims.h_kv).unwrap_or(0),
                scale: scale * std::f32::consts::LOG2_E,
                causal: input.mask.causal,
                bias: input.mask.bias.map(|view| Bias {
                    steps: [0, 1, 2].map(|dim| {
                        if view.dim(dim) == 1 {
                            0
                        } else {
                            view.strides()[dim]
                        }
                    }),
                    view,
                }),
            },
            q: input.q,
            k: input.k,
            v: input.v,
            seen: Seen::new(input.mask.key_mask, dims)?,
            out_steps: three(out.strides()),
            out: Shared(out.ptr().cast()),
            lse_steps: three(lse.strides()),
            lse: Shared(lse.ptr().cast()),
        })
    }

    /// The same with products of bf16 pairs whatever the tier, to test their layout.
    #[cfg(test)]
    pub(super) fn with_pairs(self) -> Self {
        assert_eq!(T::DTYPE, DType::BF16, "pairs are of bf16");
        Self {
            pairs: true,
            ..self
        }
    }

    /// Words of a packed key.
    fn words(&self) -> usize {
        if self.pairs {
            Paired::count(self.dims.d, pair_group(self.tier))
        } else {
            self.dims.d
        }
    }

    /// Packs the block of keys and values from `first` on as part of `key_rows` keys of a unit (batch, kv head), of which
    /// the first `skip` are not kept. Returns where block and values lie.
    ///
    /// # Safety
    /// From `base` on, 2 · `key_rows` · (d rounded up to 16) words are writable and used by nobody else, as far as they
    /// belong to this block.
    pub(super) unsafe fn pack(
        &self,
        unit: usize,
        first: usize,
        base: *mut f32,
        key_rows: usize,
        skip: usize,
    ) -> (*const f32, *const f32) {
        let (batch, head) = (unit / self.dims.h_kv, unit % self.dims.h_kv);
        let n = KEYS.min(self.dims.lk - first);
        let (d, tier) = (self.dims.d, self.tier);
        let (k_steps, v_steps) = (self.k.strides(), self.v.strides());
        let values = self.values(base, key_rows);
        let seen = self.seen.keys(batch, first);
        let at = first - skip;
        // SAFETY: the views reach the rows of this batch, head and keys, whose elements are next to each other (checked
        // in mod.rs). Panels of keys before `at` take at · words words; a panel of values takes `key_rows` rows (half as
        // many in pairs), of which this block's begin at `at`: a multiple of `KEYS`, so even.
        unsafe {
            let offset = |s: &[usize]| batch * s[0] + first * s[1] + head * s[2];
            let k = self.k.ptr().cast::<T>().add(offset(k_steps));
            let v = self.v.ptr().cast::<T>().add(offset(v_steps));
            let keys = base.add(at * self.words());
            if self.pairs {
                pack_keys::<Paired>(tier, k.cast(), k_steps[1], n, d, keys);
                pack_values_pair(tier, v.cast(), v_steps[1], n, d, seen, values, at, key_rows);
            } else {
                pack_keys::<Widened<T>>(tier, k, k_steps[1], n, d, keys);
                pack_values_single(tier, v, v_steps[1], n, d, seen, values, at, key_rows);
            }
            (keys, values)
        }
    }

    /// Where the values of a unit lie, after its keys.
    fn values(&self, base: *mut f32, key_rows: usize) -> *mut f32 {
        base.wrapping_add(key_rows * self.dims.d.next_multiple_of(16))
    }

    /// Rows first..first + n of a unit (batch, kv head) against all its keys.
    pub(super) fn task(
        &self,
        rows: &mut QueryRows,
        unit: usize,
        first: usize,
        n: usize,
        mut from: Keys<'_>,
    ) {
        let Dims {
            lq, lk, h_kv, d, ..
        } = self.dims;
        let (batch, kv_head) = (unit / h_kv, unit % h_kv);
        let (tier, parameters) = (self.tier, &self.parameters);
        let head_of = |row: usize| kv_head * parameters.group + row / lq;
        let q_steps = self.q.strides();
        let query = |row: usize| {
            let at = batch * q_steps[0] + row % lq * q_steps[1] + head_of(row) * q_steps[2];
            self.q.ptr().cast::<T>().wrapping_add(at)
        };
        let to = |row: usize| {
            let (head, token) = (head_of(row), row % lq);
            let ([b, t, h], [lse_b, lse_h, lse_t]) = (self.out_steps, self.lse_steps);
            let out = self
                .out
                .ptr()
                .wrapping_add(batch * b + token * t + head * h);
            let at = batch * lse_b + head * lse_h + token * lse_t;
            (out, self.lse.ptr().wrapping_add(at))
        };
        // SAFETY: row < group · lq, so `query` points at a row of q, whose d elements are next to each other.
        unsafe {
            if self.pairs {
                start_rows::<Paired>(tier, rows, parameters, first, n, &|row| query(row).cast());
            } else {
                start_rows::<Widened<T>>(tier, rows, parameters, first, n, &query);
            }
        }
        // The next rows' queries, and where these rows' results go.
        let size = size_of::<T>();
        let mut ahead = [
            Prefetcher::new(query(first + n).cast(), q_steps[1] * size, d * size, n),
            Prefetcher::new(
                to(first).0.cast_const().cast(),
                self.out_steps[1] * size,
                d * size,
                n,
            ),
        ];
        let last_query = (first..first + n).map(|r| r % lq).max().unwrap_or(0);
        let end = if parameters.causal {
            lk.min(last_query + 1)
        } else {
            lk
        };
        for start in (0..end).step_by(KEYS) {
            if self.seen.none(batch, start) {
                continue;
            }
            let (keys, values, value_rows) = match &mut from {
                &mut Keys::Packed(base, key_rows) => (
                    base.wrapping_add(start * self.words()).cast_const(),
                    self.values(base, key_rows).cast_const(),
                    key_rows,
                ),
                Keys::Unpacked(buffer) => {
                    let key_rows = KEYS.min(lk.next_multiple_of(16));
                    buffer.reserve(2 * key_rows * d.next_multiple_of(16));
                    let base = buffer.as_mut_ptr();
                    // SAFETY: the buffer was just made as long as `pack` asks for, and is this task's own.
                    let (keys, values) = unsafe { self.pack(unit, start, base, key_rows, start) };
                    (keys, values, key_rows)
                }
            };
            let block = KeyBlock {
                batch,
                kv_head,
                first: start,
                len: KEYS.min(lk - start),
                keys,
                values,
                value_first: if matches!(from, Keys::Packed(..)) {
                    start
                } else {
                    0
                },
                value_rows,
                seen: if self.seen.all(batch, start) {
                    std::ptr::null()
                } else {
                    self.seen.keys(batch, start)
                },
            };
            // SAFETY: `rows` was started above on this tier; keys and values were packed by `pack` (before this task, or
            // just now); the bias was checked in mod.rs to cover all rows and keys.
            unsafe {
                if self.pairs {
                    attend_block::<PairProduct, 3>(tier, rows, parameters, &block, &mut ahead);
                } else if size_of::<T>() == 2 {
                    attend_block::<SingleProduct, 3>(tier, rows, parameters, &block, &mut ahead);
                } else {
                    attend_block::<SingleProduct, 5>(tier, rows, parameters, &block, &mut ahead);
                }
            }
        }
        // SAFETY: (batch, token, head) of each row lies inside `out` and `lse`, and only this task has these rows.
        unsafe { finish_rows::<T>(tier, rows, d, &to) };
    }
}

/// Where a task finds its keys and values.
pub(super) enum Keys<'a> {
    /// All packed, in a place made for this number of key rows.
    Packed(*mut f32, usize),
    /// In the input; the task packs block after block into this buffer.
    Unpacked(&'a mut AlignedFloats),
}
