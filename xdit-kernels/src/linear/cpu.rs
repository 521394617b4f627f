//! The product: rows packed, tiles of the output handed to threads, each tile finished by the task that summed it.

use super::{
    Epilogue, Linear,
    epilogue::{Finish, Kind},
    form::{Dots, F16, F32, Form, Pairs},
    input::Input,
    plan::Plan,
    rows::Rows,
    tile::{Chunk, Scratch},
    weights::Weights,
};
use crate::{
    Error, Result, Tensor, Tier, View, ViewMut,
    dtype::FloatType,
    simd::microkernel::{self, Kernel},
    storage::Buffer,
};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As `Linear::forward_into`, of an output `shape` that is not empty; shapes of the input and the output are checked.
pub(super) fn linear(
    layer: &Linear,
    input: &Input<'_>,
    epilogue: Epilogue<'_>,
    shape: &[usize],
    mut out: ViewMut<'_>,
) -> Result<()> {
    let n = layer.out_features();
    let dtype = out.dtype().float("linear")?;
    // Operands in the output's dtype with their last dim adjacent; almost always they are so already.
    let fit = |view: View<'_>, shape: &[usize]| -> Result<Option<Tensor>> {
        if view.shape() != shape {
            return Err(Error::shape(
                "linear",
                format!("an operand {shape:?} in the epilogue"),
                view,
            ));
        }
        let fits = view.dtype() == out.dtype() && (n == 1 || view.strides()[view.ndim() - 1] == 1);
        if fits {
            Ok(None)
        } else {
            crate::layout::cast(view, out.dtype()).map(Some)
        }
    };
    let held;
    let held_gate;
    let kind = match epilogue {
        Epilogue::None => Kind::None,
        Epilogue::Activation(activation) => Kind::Activation(activation),
        Epilogue::Residual(residual) => {
            held = fit(residual, shape)?;
            Kind::Residual(held.as_ref().map_or(residual, Tensor::view).into())
        }
        Epilogue::GateResidual { gate, residual } => {
            let batch = *shape.first().filter(|_| shape.len() > 1).unwrap_or(&1);
            held_gate = fit(gate, &[batch, n])?;
            held = fit(residual, shape)?;
            Kind::GateResidual {
                gate: held_gate.as_ref().map_or(gate, Tensor::view).into(),
                rows_per_gate: input.count() / batch,
                residual: held.as_ref().map_or(residual, Tensor::view).into(),
            }
        }
        Epilogue::Mul(factor) => {
            held = fit(factor, shape)?;
            Kind::Mul(held.as_ref().map_or(factor, Tensor::view).into())
        }
    };
    let finish = Finish {
        tier: layer.weights.device.tier(),
        bias: &layer.bias,
        kind,
        dtype,
        rows: Rows::leading(out.shape(), out.strides()),
        out: crate::simd::Shared(out.ptr()),
        n,
    };
    forward(&layer.weights, input, &finish)
}

/// Rows of x times the weights, finished. Neither the number of rows nor of outputs is 0.
fn forward(weights: &Weights, input: &Input<'_>, finish: &Finish<'_>) -> Result<()> {
    let tier = weights.device.tier();
    match weights.dtype {
        FloatType::F32 => Product::<F32>::new(weights, input, finish).run(),
        FloatType::F16 => Product::<F16>::new(weights, input, finish).run(),
        // The instruction takes bf16 on both sides; other inputs are widened and so are the weights.
        FloatType::BF16 if tier == Tier::Avx512Bf16 && input.is_bf16() => {
            Product::<Dots>::new(weights, input, finish).run()
        }
        FloatType::BF16 => Product::<Pairs>::new(weights, input, finish).run(),
    }
}

/// The product of pairs, whatever the tier.
#[cfg(test)]
pub(super) fn forward_dots(
    weights: &Weights,
    input: &Input<'_>,
    finish: &Finish<'_>,
) -> Result<()> {
    Product::<Dots>::new(weights, input, finish).run()
}

/// One call's operands and sizes.
pub(super) struct Product<'a, F: Form> {
    pub(super) weights: &'a Weights,
    input: &'a Input<'a>,
    pub(super) finish: &'a Finish<'a>,
    pub(super) kernel: Kernel<F::A, F::B>,
    pub(super) wide: Kernel<f32, f32>,
    pub(super) tier: Tier,
    /// k of a panel, padding included.
    pub(super) deep: usize,
}

impl<'a, F: Form> Product<'a, F> {
    fn new(weights: &'a Weights, input: &'a Input<'a>, finish: &'a Finish<'a>) -> Self {
        let tier = weights.device.tier();
        let (kernel, wide) = (F::kernel(tier), microkernel::packed(tier));
        Self {
            weights,
            input,
            finish,
            kernel,
            wide,
            tier,
            deep: weights.deep(),
        }
    }

    /// Rows in chunks, one after another: each is packed, then multiplied while it is still in the caches.
    fn run(&self) -> Result<()> {
        let (mr, count) = (self.kernel.mr, self.input.count());
        let panel_words = self.deep.div_ceil(F::A_KS) * mr;
        let plan = Plan::new(
            count.div_ceil(mr),
            self.weights.padded_n() / self.kernel.nr,
            (mr, self.kernel.nr),
            panel_words * size_of::<F::A>(),
            rayon::current_num_threads(),
        );
        let chunk = plan.chunk_panels * mr;
        let packed = Buffer::of::<F::A>("linear input", &[plan.chunk_panels, panel_words])?;
        let scratch = Scratch::new::<F>(&plan, mr, self.kernel.nr, self.deep)?;
        for row in (0..count).step_by(chunk) {
            let rows = chunk.min(count - row);
            let chunk = Chunk::new(self, &plan, row, rows, packed.ptr().cast(), panel_words);
            self.multiply(&chunk, &scratch);
        }
        Ok(())
    }

    /// Packs a chunk's rows and multiplies them with all weights, in one parallel region: starting threads takes as long
    /// as small products do. Threads take tiles in order, so that those who work at the same time read the same weights.
    fn multiply(&self, chunk: &Chunk<F>, scratch: &Scratch) {
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
            // A group that is not done yet is being packed by a running thread, so this ends.
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

    /// Packs one group of a chunk's panels.
    ///
    /// # Safety
    /// Nobody else touches them meanwhile.
    unsafe fn pack(&self, chunk: &Chunk<F>, group: usize) {
        let mr = self.kernel.mr;
        for (row, rows, out) in chunk.group(group, mr) {
            // SAFETY: the rows exist and `out` is their panel in a buffer that was made for all of the chunk's.
            unsafe { F::pack(self.input, self.tier, row, rows, mr, self.deep, out) };
        }
    }
}

/// Turns of waiting for the other threads' packing (some microseconds) before the processor is offered to others.
const PATIENCE: u32 = 2000;
