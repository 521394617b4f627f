//! The parallel loops over a call's tasks: which thread packs keys and values, and which computes.
//!
//! A unit is a (batch, kv head): the rows of all heads of q that share it, against its keys. A row's result does not depend
//! on the loop that its unit goes through.

use super::{
    call::{FlashCall, Keys},
    dims::{Dims, OP},
    input::AttnInput,
    operands::QueryRows,
    scratch::AlignedFloats,
    tile::KEYS,
};
use crate::{
    DType, Error, Result, TensorMut, ViewMut,
    dtype::by_float,
    layout,
    simd::{Lane, Shared},
    storage::Buffer,
};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Query rows of a task: a multiple of every tier's tile height.
const ROWS: usize = 84;

/// Largest size of a packed kv head that each thread may have for itself.
const UNIT_BYTES: usize = 8 << 20;

/// Bytes of packed keys and values that are held at a time otherwise, if one kv head fits.
const PACKED_BYTES: usize = 64 << 20;

/// As `flash_into`; shapes are checked by the caller. Where `out` is not of q's dtype, the result is rounded to that first.
pub(super) fn flash(
    input: &AttnInput<'_>,
    dims: &Dims,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    if out.dtype() != input.q.dtype() {
        // SAFETY: `flash` writes every element, or fails and they are dropped.
        let mut rounded =
            unsafe { TensorMut::uninit(OP, input.q.shape(), input.q.dtype(), out.device())? };
        flash(input, dims, rounded.view_mut(), lse)?;
        return layout::copy_into(rounded.view(), out);
    }
    // Tasks read vectors along d and, of the bias, along lk.
    let mut copies = [const { None }; 4];
    let [q_copy, k_copy, v_copy, bias_copy] = &mut copies;
    let mut input = *input;
    for (view, copy) in [
        (&mut input.q, q_copy),
        (&mut input.k, k_copy),
        (&mut input.v, v_copy),
    ] {
        if view.strides()[3] != 1 && dims.d > 1 {
            *view = copy.insert(layout::contiguous(*view)?).view();
        }
    }
    if let Some(bias) = &mut input.mask.bias
        && (bias.dtype() != DType::F32 || (bias.strides()[3] != 1 && dims.lk > 1))
    {
        *bias = bias_copy.insert(layout::cast(*bias, DType::F32)?).view();
    }
    by_float!(OP, input.q.dtype(), T => FlashCall::<T>::new(&input, dims, out, lse)?.run())
}

impl<T: Lane> FlashCall<'_, T> {
    /// Computes and writes everything.
    pub(super) fn run(&self) -> Result<()> {
        let Dims { b, lk, h_kv, d, .. } = self.dims;
        // Where q has no element, its other dims say nothing of any memory.
        if self.q.numel() == 0 {
            return Ok(());
        }
        // Panels are padded to whole vectors, of 16 lanes at most.
        let key_rows = lk.checked_next_multiple_of(16);
        let unit_words = key_rows.and_then(|n| n.checked_mul(2 * d.next_multiple_of(16)));
        let (Some(key_rows), Some(unit_words)) = (key_rows, unit_words) else {
            return Err(Error::OutOfMemory {
                op: OP,
                bytes: usize::MAX,
            });
        };
        // Products of dims of k and of q, so they do not wrap.
        let plan = UnitPlan {
            units: b * h_kv,
            rows: self.parameters.group * self.dims.lq,
            key_rows,
            unit_words,
        };
        let threads = rayon::current_num_threads();
        if plan.rows <= 2 * ROWS {
            self.pack_in_tasks(&plan);
            return Ok(());
        }
        let balanced = plan.units.is_multiple_of(threads) || plan.units >= 4 * threads;
        if balanced && plan.unit_words <= UNIT_BYTES / 4 {
            return self.unit_per_worker(&plan, threads.min(plan.units));
        }
        self.pack_then_compute(&plan)
    }

    /// For few rows, which read each key once or twice: each task packs a block at a time into memory that stays in its
    /// cache.
    fn pack_in_tasks(&self, plan: &UnitPlan) {
        let tasks = plan.rows.div_ceil(ROWS);
        let rows_each = plan.rows.div_ceil(tasks);
        (0..plan.units * tasks).into_par_iter().for_each_init(
            || (QueryRows::empty(), AlignedFloats::new()),
            |(rows, packed), t| {
                let first = t % tasks * rows_each;
                let n = rows_each.min(plan.rows - first);
                self.task(rows, t / tasks, first, n, Keys::Unpacked(packed));
            },
        );
    }

    /// For enough units for all threads: each worker packs a unit into memory that stays in its cache, and computes it.
    fn unit_per_worker(&self, plan: &UnitPlan, workers: usize) -> Result<()> {
        let unit_words = plan.unit_words;
        // A worker reads of its part only the panels that it has packed.
        let buffer = Buffer::of::<f32>(OP, &[workers, unit_words])?;
        let packed = Shared(buffer.ptr().cast::<f32>());
        let next = AtomicUsize::new(0);
        let work = |worker: usize| {
            let mut rows = QueryRows::empty();
            // SAFETY: worker < workers, so its `unit_words` words are inside `packed`.
            let base = unsafe { packed.ptr().add(worker * unit_words) };
            loop {
                let unit = next.fetch_add(1, Ordering::Relaxed);
                if unit >= plan.units {
                    break;
                }
                for first in (0..self.dims.lk).step_by(KEYS) {
                    // SAFETY: the words at `base` are this worker's own, as many as `pack` asks for.
                    unsafe { self.pack(unit, first, base, plan.key_rows, 0) };
                }
                for first in (0..plan.rows).step_by(ROWS) {
                    let n = ROWS.min(plan.rows - first);
                    self.task(&mut rows, unit, first, n, Keys::Packed(base, plan.key_rows));
                }
            }
        };
        (0..workers).into_par_iter().with_max_len(1).for_each(work);
        Ok(())
    }

    /// For few units or large ones: all threads pack some units, then compute them.
    fn pack_then_compute(&self, plan: &UnitPlan) -> Result<()> {
        let (lk, unit_words) = (self.dims.lk, plan.unit_words);
        let held = (PACKED_BYTES / 4 / unit_words.max(1)).clamp(1, plan.units);
        // The panels that a task reads have been written before it starts (`pack` runs to its end first).
        let buffer = Buffer::of::<f32>(OP, &[held, unit_words])?;
        let packed = Shared(buffer.ptr().cast::<f32>());
        let (blocks, tasks) = (lk.div_ceil(KEYS), plan.rows.div_ceil(ROWS));
        for first_unit in (0..plan.units).step_by(held) {
            let count = held.min(plan.units - first_unit);
            // SAFETY: unit < held, so its `unit_words` words are inside `packed`.
            let base = |unit: usize| unsafe { packed.ptr().add(unit * unit_words) };
            (0..count * blocks).into_par_iter().for_each(|t| {
                let (unit, first) = (t / blocks, t % blocks * KEYS);
                // SAFETY: as many words as `pack` asks for lie at the base, and no other task writes the panels of this
                // unit and block.
                unsafe { self.pack(first_unit + unit, first, base(unit), plan.key_rows, 0) };
            });
            (0..count * tasks)
                .into_par_iter()
                .for_each_init(QueryRows::empty, |scratch, t| {
                    let (unit, first) = (t / tasks, t % tasks * ROWS);
                    let n = ROWS.min(plan.rows - first);
                    let keys = Keys::Packed(base(unit), plan.key_rows);
                    self.task(scratch, first_unit + unit, first, n, keys);
                });
        }
        Ok(())
    }
}

/// Sizes of a call's parts.
struct UnitPlan {
    units: usize,
    /// Query rows of a unit.
    rows: usize,
    /// Keys of a unit, padded.
    key_rows: usize,
    /// Words of a unit's packed keys and values.
    unit_words: usize,
}
