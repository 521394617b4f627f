//! The product: rows packed, tiles of the output handed to threads, each tile finished by the task that summed it.

use super::{
    epilogue::Finish,
    form::{Dots, F16, F32, Form, Pairs},
    input::Input,
    plan::{PACKED_BYTES, Plan},
    weights::{BLOCK, Weights},
};
use crate::{
    DType, Result, Tier,
    simd::{
        Shared,
        microkernel::{self, Kernel, Tile},
    },
    storage::Buffer,
};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of x times the weights, finished. Neither the number of rows nor of outputs is 0.
pub(super) fn forward(weights: &Weights, input: &Input<'_>, finish: &Finish<'_>) -> Result<()> {
    let tier = weights.device.tier();
    match weights.dtype {
        DType::F32 => Product::<F32>::new(weights, input, finish).run(),
        DType::F16 => Product::<F16>::new(weights, input, finish).run(),
        // The instruction takes bf16 on both sides; other inputs are widened and so are the weights.
        DType::BF16 if tier == Tier::Avx512Bf16 && input.is_bf16() => {
            Product::<Dots>::new(weights, input, finish).run()
        }
        DType::BF16 => Product::<Pairs>::new(weights, input, finish).run(),
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
struct Product<'a, F: Form> {
    weights: &'a Weights,
    input: &'a Input<'a>,
    finish: &'a Finish<'a>,
    kernel: Kernel<F::A, F::B>,
    wide: Kernel<f32, f32>,
    tier: Tier,
    /// k of a panel, padding included.
    deep: usize,
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

    /// Rows in chunks whose packed form is of bounded size, one chunk after another.
    fn run(&self) -> Result<()> {
        let (mr, count) = (self.kernel.mr, self.input.count());
        let panel_words = self.deep.div_ceil(F::A_KS) * mr;
        let chunk = (PACKED_BYTES / (panel_words * size_of::<F::A>()).max(1)).max(1);
        // Chunks of equal size: a short last one would be slow.
        let panels = count.div_ceil(mr);
        let chunk = panels.div_ceil(panels.div_ceil(chunk)) * mr;
        let bytes = chunk.min(count).div_ceil(mr) * panel_words * size_of::<F::A>();
        let packed = Buffer::new(bytes, false, "linear input")?;
        let plan = Plan::new(
            chunk.min(count).div_ceil(mr),
            self.weights.padded_n() / self.kernel.nr,
            mr,
            self.kernel.nr,
            rayon::current_num_threads(),
        );
        let scratch = Scratch::new(&plan, mr, self.kernel.nr, F::NARROW, self.deep)?;
        for row in (0..count).step_by(chunk) {
            let rows = chunk.min(count - row);
            self.pack(row, rows, packed.ptr().cast(), panel_words);
            self.multiply(row, rows, packed.ptr().cast(), panel_words, &plan, &scratch);
        }
        Ok(())
    }

    /// Packs rows `row .. row + rows` into panels of `panel_words`.
    fn pack(&self, row: usize, rows: usize, packed: *mut F::A, panel_words: usize) {
        /// Words that are packed in less time than a task takes to start.
        const SERIAL: usize = 1 << 14;
        let (mr, packed) = (self.kernel.mr, Shared(packed));
        let one = |p: usize| {
            let first = p * mr;
            // SAFETY: panel p has its own `panel_words` words of the buffer, which was made for all panels.
            unsafe {
                let out = packed.ptr().add(p * panel_words);
                F::pack(
                    self.input,
                    self.tier,
                    row + first,
                    mr.min(rows - first),
                    mr,
                    self.deep,
                    out,
                );
            }
        };
        let panels = rows.div_ceil(mr);
        if panels * panel_words <= SERIAL {
            (0..panels).for_each(one);
        } else {
            (0..panels)
                .into_par_iter()
                .with_min_len(SERIAL.div_ceil(panel_words))
                .for_each(one);
        }
    }

    /// Multiplies packed rows with all weights. Threads take tiles in order, so that those who work at the same time
    /// read the same weights.
    fn multiply(
        &self,
        row: usize,
        rows: usize,
        packed: *const F::A,
        panel_words: usize,
        plan: &Plan,
        scratch: &Scratch,
    ) {
        let panels = rows.div_ceil(self.kernel.mr);
        let row_tiles = panels.div_ceil(plan.row_panels);
        let column_panels = self.weights.padded_n() / self.kernel.nr;
        let tasks = row_tiles * column_panels.div_ceil(plan.column_panels);
        let (next, packed) = (AtomicUsize::new(0), Shared(packed.cast_mut()));
        let work = |worker: usize| loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            let p = (task % row_tiles) * plan.row_panels;
            let j = (task / row_tiles) * plan.column_panels;
            let tile = TileRange {
                row,
                rows: p * self.kernel.mr..rows.min((p + plan.row_panels) * self.kernel.mr),
                panels: j..column_panels.min(j + plan.column_panels),
            };
            // SAFETY: the packed rows are complete (packing came before); each task has its own tile of the output and
            // each worker its own piece of scratch.
            unsafe {
                self.tile(
                    &tile,
                    packed.ptr().add(p * panel_words),
                    panel_words,
                    scratch.of(worker),
                    plan,
                )
            };
        };
        let workers = tasks.min(scratch.workers);
        if workers == 1 {
            work(0);
        } else {
            (0..workers).into_par_iter().with_max_len(1).for_each(work);
        }
    }

    /// Sums and finishes one tile of the output.
    ///
    /// # Safety
    /// `a` is the packed panel of the tile's first row, others follow `panel_words` apart; `scratch` has room for the
    /// plan's tile and a widened block, and is nobody else's; nor is the tile of the output.
    unsafe fn tile(
        &self,
        tile: &TileRange,
        a: *const F::A,
        panel_words: usize,
        scratch: Piece,
        plan: &Plan,
    ) {
        let (mr, nr) = (self.kernel.mr, self.kernel.nr);
        let stride = plan.column_panels * nr;
        let weights = self.weights.ptr().cast::<F::B>();
        let widen = F::NARROW && tile.rows.len() > WIDEN_ROWS * mr;
        let block = |k: usize, j: usize| {
            let depth = BLOCK.min(self.deep - k);
            // SAFETY: block k of weight panel j lies inside the weights; rows and columns of sums inside the scratch.
            unsafe {
                let b = weights.add(j * (self.deep / F::B_KS) * nr + k / F::B_KS * nr);
                let a = a.add(k / F::A_KS * mr);
                let sums = scratch.sums.add((j - tile.panels.start) * nr);
                if widen {
                    F::widen(self.tier, b, depth / F::B_KS, scratch.block);
                    let a = F::as_f32(a);
                    column(
                        &self.wide,
                        tile.rows.len(),
                        depth,
                        a,
                        panel_words,
                        scratch.block,
                        sums,
                        stride,
                        k > 0,
                    );
                } else {
                    column(
                        &self.kernel,
                        tile.rows.len(),
                        depth / F::B_KS,
                        a,
                        panel_words,
                        b,
                        sums,
                        stride,
                        k > 0,
                    );
                }
            }
        };
        // With k = 0 one empty block sets the sums to 0.
        let blocks = (0..self.deep.max(1)).step_by(BLOCK);
        if tile.rows.len() <= 2 * mr {
            // Few rows: the weights pass by once, in the order in which they lie.
            tile.panels
                .clone()
                .for_each(|j| blocks.clone().for_each(|k| block(k, j)));
        } else {
            blocks.for_each(|k| tile.panels.clone().for_each(|j| block(k, j)));
        }
        let columns = tile.panels.start * nr..self.finish.n.min(tile.panels.end * nr);
        let rows = tile.row + tile.rows.start..tile.row + tile.rows.end;
        // SAFETY: every sum of the tile has been written, by whole panels; the tile is inside the output and this task's.
        unsafe { self.finish.run(scratch.sums, stride, rows, columns) };
    }
}

/// Panels of rows beyond which a block of narrow weights is widened once instead of in each panel's tile.
const WIDEN_ROWS: usize = 2;

/// All panels of rows of a tile against one block of weights.
///
/// # Safety
/// `steps` words of `b`, `rows` packed rows at `a` and their sums at `c` are there.
#[allow(
    clippy::too_many_arguments,
    reason = "pointers and strides of a kernel"
)]
#[inline]
unsafe fn column<A, B>(
    kernel: &Kernel<A, B>,
    rows: usize,
    steps: usize,
    a: *const A,
    panel_words: usize,
    b: *const B,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    let mr = kernel.mr;
    let full: Tile<A, B> = kernel.tile(mr);
    for p in 0..rows.div_ceil(mr) {
        let rows = mr.min(rows - p * mr);
        let tile = if rows == mr { full } else { kernel.tile(rows) };
        // SAFETY: the caller's promise.
        unsafe {
            tile(
                steps,
                a.add(p * panel_words),
                1,
                mr,
                b,
                c.add(p * mr * stride),
                stride,
                add,
            )
        };
    }
}

/// A tile of the output: `rows` count from `row`, panels are columns by NR.
struct TileRange {
    row: usize,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
}

/// Memory of the workers of one call: a tile of sums and a widened block each.
struct Scratch {
    buffer: Buffer,
    sums: usize,
    block: usize,
    workers: usize,
}

/// One worker's.
struct Piece {
    sums: *mut f32,
    block: *mut f32,
}

impl Scratch {
    fn new(plan: &Plan, mr: usize, nr: usize, narrow: bool, deep: usize) -> Result<Self> {
        // A cache line between workers comes from the widths: NR is at least 16 f32.
        let sums = plan.row_panels * mr * plan.column_panels * nr;
        let block = if narrow { BLOCK.min(deep) * nr } else { 0 };
        let workers = rayon::current_num_threads().min(plan.tasks);
        let buffer = Buffer::new(
            workers * (sums + block) * size_of::<f32>(),
            false,
            "linear sums",
        )?;
        Ok(Self {
            buffer,
            sums,
            block,
            workers,
        })
    }

    fn of(&self, worker: usize) -> Piece {
        debug_assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        // Inside the buffer, which was made for `workers` such pieces.
        let sums = self
            .buffer
            .ptr()
            .cast::<f32>()
            .wrapping_add(worker * (self.sums + self.block));
        Piece {
            sums,
            block: sums.wrapping_add(self.sums),
        }
    }
}
