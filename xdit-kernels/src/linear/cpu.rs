//! Linear layers on the processor: tiles of the output are distributed over threads, and the thread that sums a tile also
//! finishes it.

mod finish;
mod form;
mod input;
mod plan;
mod product;
mod row_offsets;
#[cfg(test)]
mod tests;
mod tile;
mod weights;

use super::epilogue::{Epilogue, batch};
use crate::{
    Result, Tensor, View, ViewMut, dtype::FloatType, layout, simd::Shared, storage::Buffer,
};
use finish::{Finish, FusedOp};
use form::{Dots, F16, F32, Form, Pairs};
use input::{Input, InputPanel, PackedWord};
use plan::{TileLimits, TilePlan};
use product::MatrixProduct;
use rayon::prelude::*;
use row_offsets::RowOffsets;
use std::sync::atomic::{AtomicUsize, Ordering};
use tile::{Chunk, TileScratch};
pub(super) use weights::PackedLinear;

/// Writes the layer of `x`, with its epilogue, into `out` of this `shape`. The caller has checked shapes, dtypes and devices,
/// and that `out` is not empty.
pub(super) fn linear(
    packed: &PackedLinear,
    x: &[View<'_>],
    epilogue: Epilogue<'_>,
    shape: &[usize],
    mut out: ViewMut<'_>,
) -> Result<()> {
    let input = Input::new(x)?;
    let n = packed.n;
    // Operands in the dtype of the output whose last dim is adjacent. Almost all are so already.
    let fit = |view: View<'_>| -> Result<Option<Tensor>> {
        let fits = view.dtype() == out.dtype() && (n == 1 || view.strides()[view.ndim() - 1] == 1);
        (!fits).then(|| layout::cast(view, out.dtype())).transpose()
    };
    let held;
    let held_gate;
    let kind = match epilogue {
        Epilogue::None => FusedOp::None,
        Epilogue::Activation(activation) => FusedOp::Activation(activation),
        Epilogue::Residual(residual) => {
            held = fit(residual)?;
            FusedOp::Residual(held.as_ref().map_or(residual, Tensor::view).into())
        }
        Epilogue::GateResidual { gate, residual } => {
            held_gate = fit(gate)?;
            held = fit(residual)?;
            FusedOp::GateResidual {
                gate: held_gate.as_ref().map_or(gate, Tensor::view).into(),
                rows_per_gate: input.count() / batch(shape),
                residual: held.as_ref().map_or(residual, Tensor::view).into(),
            }
        }
        Epilogue::Mul(factor) => {
            held = fit(factor)?;
            FusedOp::Mul(held.as_ref().map_or(factor, Tensor::view).into())
        }
    };
    let finish = Finish {
        tier: packed.tier,
        bias: &packed.bias,
        kind,
        dtype: out.dtype().float("linear")?,
        rows: RowOffsets::leading(out.shape(), out.strides()),
        out: Shared(out.ptr()),
        n,
    };
    match packed.dtype {
        FloatType::F32 => MatrixProduct::<F32>::new(packed, &input, &finish).run(),
        FloatType::F16 => MatrixProduct::<F16>::new(packed, &input, &finish).run(),
        // The instruction takes bf16 on both sides. For other inputs the weights are widened.
        FloatType::BF16 if packed.tier.multiplies_bf16() && input.is_bf16() => {
            MatrixProduct::<Dots>::new(packed, &input, &finish).run()
        }
        FloatType::BF16 => MatrixProduct::<Pairs>::new(packed, &input, &finish).run(),
    }
}

impl<F: Form> MatrixProduct<'_, F> {
    /// Computes the rows in chunks, one after another: packs a chunk, then multiplies it while it is still in the caches.
    fn run(&self) -> Result<()> {
        let (mr, count) = (self.kernel.mr, self.input.count());
        let panel_words = self.deep.div_ceil(F::A::KS) * mr;
        let plan = TilePlan::new(
            count.div_ceil(mr),
            self.weights.padded_n() / self.kernel.nr,
            (mr, self.kernel.nr),
            panel_words * size_of::<F::A>(),
            TileLimits::of(self.tier),
            rayon::current_num_threads(),
        );
        let chunk = plan.chunk_panels * mr;
        let packed = Buffer::of::<F::A>("linear input", &[plan.chunk_panels, panel_words])?;
        let scratch = TileScratch::new::<F>(&plan, mr, self.kernel.nr, self.block.min(self.deep))?;
        for row in (0..count).step_by(chunk) {
            let rows = chunk.min(count - row);
            let chunk = Chunk::new(self, &plan, row, rows, packed.ptr().cast(), panel_words);
            self.multiply(&chunk, &scratch);
        }
        Ok(())
    }

    /// Packs the rows of a chunk and multiplies them by all weights in one parallel region, since starting threads takes as
    /// long as a small product. Threads take tiles in order, so that threads that work at the same time read the same weights.
    fn multiply(&self, chunk: &Chunk<F>, scratch: &TileScratch) {
        let groups = chunk.groups(self.kernel.mr);
        let (taken, packed, next) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let work = |worker: usize| {
            loop {
                let group = taken.fetch_add(1, Ordering::Relaxed);
                if group >= groups {
                    break;
                }
                // SAFETY: each group of panels is packed by the one thread that took it, before anyone reads it.
                unsafe { self.pack(chunk, group) };
                packed.fetch_add(1, Ordering::Release);
            }
            // A running thread packs each group that is not done yet, so this loop ends.
            let mut turns = 0u32;
            while packed.load(Ordering::Acquire) < groups {
                turns += 1;
                if turns < PATIENCE {
                    std::hint::spin_loop()
                } else {
                    std::thread::yield_now()
                }
            }
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= chunk.tasks {
                    break;
                }
                // SAFETY: the packed rows are complete (seen through `packed`); each task has its own tile of the output
                // and each worker its own piece of scratch.
                unsafe { self.tile(chunk, task, &next, scratch.of(worker)) };
            }
        };
        let workers = chunk.tasks.min(scratch.workers);
        if workers == 1 {
            work(0);
        } else {
            (0..workers).into_par_iter().with_max_len(1).for_each(work);
        }
    }

    /// Packs one group of panels of a chunk.
    ///
    /// # Safety
    /// No other thread touches these panels meanwhile.
    unsafe fn pack(&self, chunk: &Chunk<F>, group: usize) {
        let mr = self.kernel.mr;
        for (row, rows, out) in chunk.group(group, mr) {
            let panel = InputPanel {
                tier: self.tier,
                row,
                rows,
                mr,
                deep: self.deep,
            };
            // SAFETY: the rows exist and `out` is their panel in a buffer that was made for all of the chunk's.
            unsafe { F::A::pack(self.input, panel, out) };
        }
    }
}

/// Turns of the loop that waits for the other threads to pack (some microseconds) before it yields the processor.
const PATIENCE: u32 = 2000;
