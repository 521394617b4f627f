//! The driver: packs keys and values, hands blocks of query rows to tasks, writes the results.

use super::{
    AttnInput, Dims, OP,
    block::{Bias, Job, KeyBlock, Rows, attend_block, finish_rows, start_rows},
    lanes::{Pair, Single},
    pack::{Paired, Widened, Words, pack_keys, pack_values_pair, pack_values_single, prefetch},
    scratch::Floats,
    tile::KEYS,
};
use crate::{DType, Result, TensorMut, Tier, View, ViewMut, simd::Lane, simd::Shared};
use half::{bf16, f16};
use rayon::prelude::*;

/// Query rows of a task: a multiple of every tier's tile height.
const ROWS: usize = 84;

/// Largest size of a packed kv head that each thread may have for itself.
const UNIT_BYTES: usize = 8 << 20;

/// Bytes of packed keys and values that are held at a time otherwise, if one kv head fits.
const PACKED_BYTES: usize = 64 << 20;

/// As `flash_into`, on views whose last strides are 1.
pub(super) fn flash(
    input: &AttnInput<'_>,
    dims: &Dims,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    match input.q.dtype() {
        DType::F32 => Call::<f32>::new(input, dims, out, lse).run(),
        DType::BF16 => Call::<bf16>::new(input, dims, out, lse).run(),
        DType::F16 => Call::<f16>::new(input, dims, out, lse).run(),
    }
}

/// One call of the kernel, for elements of type `T`.
pub(super) struct Call<'a, T> {
    dims: Dims,
    tier: Tier,
    /// Whether products are of bf16 pairs.
    pairs: bool,
    job: Job<'a>,
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    seen: Seen,
    out: Shared<T>,
    /// Strides of batch, token and head.
    out_steps: [usize; 3],
    lse: Shared<f32>,
    lse_steps: [usize; 3],
}

impl<'a, T: Lane> Call<'a, T> {
    pub(super) fn new(
        input: &AttnInput<'a>,
        dims: &Dims,
        mut out: ViewMut<'_>,
        mut lse: ViewMut<'_>,
    ) -> Self {
        let scale = input.scale.unwrap_or(1.0 / (dims.d as f32).sqrt());
        let three = |s: &[usize]| [s[0], s[1], s[2]];
        let tier = input.q.device().tier();
        Self {
            dims: *dims,
            tier,
            pairs: T::DTYPE == DType::BF16 && tier == Tier::Avx512Bf16,
            job: Job {
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
            seen: Seen::new(input.mask.key_mask, dims),
            out_steps: three(out.strides()),
            out: Shared(out.ptr().cast()),
            lse_steps: three(lse.strides()),
            lse: Shared(lse.ptr().cast()),
        }
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

    /// Computes and writes everything.
    pub(super) fn run(&self) -> Result<()> {
        let Dims { b, lk, h_kv, d, .. } = self.dims;
        let (units, rows) = (b * h_kv, self.job.group * self.dims.lq);
        if units * rows == 0 {
            return Ok(());
        }
        let tasks = rows.div_ceil(ROWS);
        if tasks <= 2 {
            // The keys pass by once: each task packs a block at a time into memory that stays in its cache.
            let rows_each = rows.div_ceil(tasks);
            (0..units * tasks)
                .into_par_iter()
                .for_each_init(Scratch::default, |scratch, t| {
                    let first = t % tasks * rows_each;
                    let n = rows_each.min(rows - first);
                    self.task(
                        &mut scratch.rows,
                        t / tasks,
                        first,
                        n,
                        Keys::Unpacked(&mut scratch.packed),
                    );
                });
            return Ok(());
        }
        // Panels are padded to whole vectors, of 16 lanes at most.
        let (key_rows, width) = (lk.next_multiple_of(16), d.next_multiple_of(16));
        let unit_words = 2 * key_rows * width;
        let threads = rayon::current_num_threads();
        if (units % threads == 0 || units >= 4 * threads) && 4 * unit_words <= UNIT_BYTES {
            // Enough units for all threads: each packs its unit into memory that stays in its cache.
            (0..units).into_par_iter().with_max_len(1).for_each_init(
                Scratch::default,
                |scratch, unit| {
                    scratch.packed.reserve(unit_words);
                    let base = scratch.packed.as_mut_ptr();
                    for first in (0..lk).step_by(KEYS) {
                        // SAFETY: the buffer is this task's own, and as long as `pack` asks for.
                        unsafe { self.pack(unit, first, base, key_rows, 0) };
                    }
                    for first in (0..rows).step_by(ROWS) {
                        let n = ROWS.min(rows - first);
                        self.task(
                            &mut scratch.rows,
                            unit,
                            first,
                            n,
                            Keys::Packed(base, key_rows),
                        );
                    }
                },
            );
            return Ok(());
        }
        let held = (PACKED_BYTES / 4 / unit_words.max(1)).clamp(1, units);
        // SAFETY: the panels that a task reads have been written before it starts (`pack` runs to its end first).
        let mut packed =
            unsafe { TensorMut::uninit(OP, [held * unit_words], DType::F32, self.q.device())? };
        let packed = Shared(packed.view_mut().ptr().cast::<f32>());
        let blocks = lk.div_ceil(KEYS);
        for first_unit in (0..units).step_by(held) {
            let count = held.min(units - first_unit);
            (0..count * blocks).into_par_iter().for_each(|t| {
                let (unit, block) = (t / blocks, t % blocks);
                // SAFETY: unit < held, so its `unit_words` words are inside `packed`.
                let base = unsafe { packed.ptr().add(unit * unit_words) };
                // SAFETY: `key_rows` · `width` words for the keys and as many for the values lie at `base`, and no other
                // task writes the panels of this unit and block.
                unsafe { self.pack(first_unit + unit, block * KEYS, base, key_rows, 0) };
            });
            (0..count * tasks)
                .into_par_iter()
                .for_each_init(Rows::empty, |scratch, t| {
                    let (unit, first) = (t / tasks, t % tasks * ROWS);
                    // SAFETY: as above.
                    let base = unsafe { packed.ptr().add(unit * unit_words) };
                    let (n, unit) = (ROWS.min(rows - first), first_unit + unit);
                    self.task(scratch, unit, first, n, Keys::Packed(base, key_rows));
                });
        }
        Ok(())
    }

    /// Words of a packed key.
    fn words(&self) -> usize {
        if self.pairs {
            Paired::count(self.dims.d)
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
    unsafe fn pack(
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
    fn task(&self, rows: &mut Rows, unit: usize, first: usize, n: usize, mut from: Keys<'_>) {
        let Dims {
            lq, lk, h_kv, d, ..
        } = self.dims;
        let (batch, kv_head) = (unit / h_kv, unit % h_kv);
        let (tier, job) = (self.tier, &self.job);
        let head_of = |row: usize| kv_head * job.group + row / lq;
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
                start_rows::<Paired>(tier, rows, job, first, n, &|row| query(row).cast());
            } else {
                start_rows::<Widened<T>>(tier, rows, job, first, n, &query);
            }
        }
        // These rows' places and the next rows' queries: whole cache lines far apart, which the processor does not foresee.
        for row in first..first + n {
            prefetch(to(row).0, d);
            prefetch(query(row + n), d);
        }
        let last_query = (first..first + n).map(|r| r % lq).max().unwrap_or(0);
        let end = if job.causal {
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
                    attend_block::<Pair, 3>(tier, rows, job, &block);
                } else if size_of::<T>() == 2 {
                    attend_block::<Single, 3>(tier, rows, job, &block);
                } else {
                    attend_block::<Single, 5>(tier, rows, job, &block);
                }
            }
        }
        // SAFETY: (batch, token, head) of each row lies inside `out` and `lse`, and only this task has these rows.
        unsafe { finish_rows::<T>(tier, rows, d, &to) };
    }
}

/// Where a task finds its keys and values.
enum Keys<'a> {
    /// All packed, in a place made for this number of key rows.
    Packed(*mut f32, usize),
    /// In the input; the task packs block after block into this buffer.
    Unpacked(&'a mut Floats),
}

/// A task's memory, kept from one task to the next.
struct Scratch {
    rows: Rows,
    packed: Floats,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            rows: Rows::empty(),
            packed: Floats::new(),
        }
    }
}

/// The key mask as the kernel reads it.
struct Seen {
    /// [b, lk]: 1 where the key is seen, else 0; empty if there is no mask.
    flags: Vec<f32>,
    /// [b, blocks]: how many keys of the block are seen.
    counts: Vec<usize>,
    lk: usize,
}

impl Seen {
    fn new(mask: Option<&[bool]>, dims: &Dims) -> Self {
        let lk = dims.lk;
        let mask = mask.filter(|_| lk > 0).unwrap_or(&[]);
        let count = |block: &[bool]| block.iter().filter(|&&seen| seen).count();
        Self {
            flags: mask.iter().map(|&seen| f32::from(u8::from(seen))).collect(),
            counts: mask
                .chunks(lk.max(1))
                .flat_map(|row| row.chunks(KEYS).map(count))
                .collect(),
            lk,
        }
    }

    fn count(&self, batch: usize, first: usize) -> Option<usize> {
        let at = batch * self.lk.div_ceil(KEYS) + first / KEYS;
        self.counts.get(at).copied()
    }

    /// Whether no key of the block from `first` on is seen.
    fn none(&self, batch: usize, first: usize) -> bool {
        self.count(batch, first) == Some(0)
    }

    /// Whether every key of it is.
    fn all(&self, batch: usize, first: usize) -> bool {
        self.count(batch, first)
            .is_none_or(|n| n == KEYS.min(self.lk - first))
    }

    /// The flags from a key on; null if there is no mask.
    fn keys(&self, batch: usize, first: usize) -> *const f32 {
        match self.flags.get(batch * self.lk + first..) {
            Some(flags) if !flags.is_empty() => flags.as_ptr(),
            _ => std::ptr::null(),
        }
    }
}
