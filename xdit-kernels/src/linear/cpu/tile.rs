//! One tile of the output, computed in blocks of k while the operands of the next tile are prefetched.

use super::{form::Form, input::PackedWord, plan::TilePlan, product::MatrixProduct};
use crate::{
    Result,
    dtype::FloatType,
    simd::{
        Shared,
        microkernel::{Ahead, Kernel, Sums},
    },
    storage::Buffer,
};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Panels of rows beyond which a block of narrow weights is widened once instead of in the tile of each panel.
const WIDEN_ROWS: usize = 2;

/// Rows that are packed at the same time, and how their part of the output is cut.
pub(super) struct Chunk<F: Form> {
    row: usize,
    rows: usize,
    packed: Shared<F::A>,
    panel_words: usize,
    plan: TilePlan,
    row_tiles: usize,
    /// Panels of all weights.
    column_panels: usize,
    pub(super) tasks: usize,
}

/// A tile of the output: rows count from the chunk's first, panels are NR columns each.
struct OutputTile {
    rows: Range<usize>,
    panels: Range<usize>,
}

impl<F: Form> Chunk<F> {
    /// Rows `row .. row + rows`, packed in panels of `panel_words`.
    pub(super) fn new(
        product: &MatrixProduct<'_, F>,
        plan: &TilePlan,
        row: usize,
        rows: usize,
        packed: *mut F::A,
        panel_words: usize,
    ) -> Self {
        let row_tiles = rows.div_ceil(product.kernel.mr).div_ceil(plan.row_panels);
        let column_panels = product.weights.padded_n() / product.kernel.nr;
        let tasks = row_tiles * column_panels.div_ceil(plan.column_panels);
        Self {
            row,
            rows,
            packed: Shared(packed),
            panel_words,
            plan: *plan,
            row_tiles,
            column_panels,
            tasks,
        }
    }

    /// Number of groups in which the panels of the rows are packed.
    pub(super) fn groups(&self, mr: usize) -> usize {
        self.rows.div_ceil(mr).div_ceil(self.group_panels())
    }

    /// Panels of a group: enough that packing takes longer than taking the group.
    fn group_panels(&self) -> usize {
        (1usize << 13).div_ceil(self.panel_words.max(1))
    }

    /// The panels of a group: first row of the input, number of rows, address.
    pub(super) fn group(
        &self,
        group: usize,
        mr: usize,
    ) -> impl Iterator<Item = (usize, usize, *mut F::A)> {
        let panels = self.rows.div_ceil(mr);
        let first = group * self.group_panels();
        (first..panels.min(first + self.group_panels())).map(move |p| {
            let place = self.packed.ptr().wrapping_add(p * self.panel_words);
            (self.row + p * mr, mr.min(self.rows - p * mr), place)
        })
    }

    fn tile(&self, task: usize, mr: usize) -> OutputTile {
        let p = (task % self.row_tiles) * self.plan.row_panels;
        let j = (task / self.row_tiles) * self.plan.column_panels;
        OutputTile {
            rows: p * mr..self.rows.min((p + self.plan.row_panels) * mr),
            panels: j..self.column_panels.min(j + self.plan.column_panels),
        }
    }
}

impl<F: Form> MatrixProduct<'_, F> {
    /// Address of row panel `rows / mr` at k. It may lie behind the last panel.
    fn a(&self, chunk: &Chunk<F>, row: usize, k: usize) -> *const F::A {
        chunk
            .packed
            .ptr()
            .wrapping_add(row / self.kernel.mr * chunk.panel_words + k / F::A::KS * self.kernel.mr)
    }

    /// Address of weight panel j at k, likewise.
    fn b(&self, j: usize, k: usize) -> *const F::B {
        let words = self.deep / F::B_KS * j + k / F::B_KS;
        self.weights
            .ptr()
            .cast::<F::B>()
            .wrapping_add(words * self.kernel.nr)
    }

    /// Sums and finishes tile `task`. `next` is the tile that this thread will probably take afterwards.
    ///
    /// # Safety
    /// The rows of the chunk are packed; `scratch` has room for a tile of the plan and a widened block; nobody else uses
    /// `scratch` or this tile of the output.
    pub(super) unsafe fn tile(
        &self,
        chunk: &Chunk<F>,
        task: usize,
        next: &AtomicUsize,
        scratch: Piece,
    ) {
        let (mr, nr) = (self.kernel.mr, self.kernel.nr);
        let tile = chunk.tile(task, mr);
        let stride = chunk.plan.column_panels * nr;
        let widen = F::NARROW && tile.rows.len() > WIDEN_ROWS * mr;
        let columns = tile.panels.start * nr..tile.panels.end * nr;
        let row = chunk.row + tile.rows.start;
        let few = self
            .kernel
            .few
            .iter()
            .find(|few| tile.rows.len() <= few.rows && few.rows <= mr);
        // A kernel for more rows than there are has room for their sums in the scratch only.
        let direct = self
            .finish
            .direct(row, columns.clone())
            .filter(|_| few.is_none_or(|few| few.rows == tile.rows.len()));
        // Sums begin with the bias; those of the last block go to the output, if nothing else happens to them.
        let sums = |k: usize, j: usize| {
            let column = (j - tile.panels.start) * nr;
            let held = scratch.sums.wrapping_add(column);
            let (from, from_row) = if k == 0 {
                (self.finish.bias[j * nr..].as_ptr(), 0)
            } else {
                (held.cast_const(), stride)
            };
            let (to, to_row, dtype) = match direct {
                Some((to, row)) if k + self.block >= self.deep => {
                    let dtype = self.finish.dtype;
                    (to.wrapping_add(column * dtype.size()), row, dtype)
                }
                _ => (held.cast(), stride, FloatType::F32),
            };
            Sums {
                from,
                from_row,
                to,
                to_row,
                dtype,
            }
        };
        let block = |k: usize, j: usize| {
            let depth = self.block.min(self.deep - k);
            // SAFETY: block k of weight panel j lies inside the weights; rows and columns of sums inside the scratch or
            // the output.
            unsafe {
                let (a, b) = (self.a(chunk, tile.rows.start, k), self.b(j, k));
                let block = BlockProduct {
                    rows: tile.rows.len(),
                    panel_words: chunk.panel_words,
                    sums: sums(k, j),
                    ahead: self.ahead(chunk, &tile, k, j, next),
                };
                if widen {
                    const { assert!(!F::NARROW || F::A::KS == 1, "narrow forms take f32") };
                    F::widen(self.tier, b, depth / F::B_KS, scratch.block);
                    block.multiply(&self.wide, depth, a.cast(), scratch.block);
                } else {
                    block.multiply(&self.kernel, depth / F::B_KS, a, b);
                }
            }
        };
        // With k = 0 one empty block sets the sums to the bias.
        let blocks = (0..self.deep.max(1)).step_by(self.block);
        if tile.rows.len() <= 2 * mr {
            // Few rows: the weights pass by once, in the order in which they lie.
            let mut j = tile.panels.start;
            if let Some(few) = few {
                while j + few.panels <= tile.panels.end {
                    for k in blocks.clone() {
                        let words = self.block.min(self.deep - k) / F::B_KS;
                        // SAFETY: as above, for each panel; the packed panel has MR rows, those that the input lacks 0,
                        // and the scratch room for their sums.
                        unsafe {
                            let (a, b) = (self.a(chunk, tile.rows.start, k), self.b(j, k));
                            (few.tile)(words, a, b, self.deep / F::B_KS * nr, &sums(k, j));
                        }
                    }
                    j += few.panels;
                }
            }
            (j..tile.panels.end).for_each(|j| blocks.clone().for_each(|k| block(k, j)));
        } else {
            blocks.for_each(|k| tile.panels.clone().for_each(|j| block(k, j)));
        }
        if direct.is_none() {
            let columns = columns.start..self.finish.n.min(columns.end);
            let rows = row..chunk.row + tile.rows.end;
            // SAFETY: every sum of the tile has been written, by whole panels; the tile is inside the output and this
            // task's.
            unsafe { self.finish.run(scratch.sums, stride, rows, columns) };
        }
    }

    /// What block (k, j) of a tile prefetches: the block of weights after it, and a part of the next block of k of the rows,
    /// which the panels of weights of the tile share.
    fn ahead(
        &self,
        chunk: &Chunk<F>,
        tile: &OutputTile,
        k: usize,
        j: usize,
        next: &AtomicUsize,
    ) -> [Stream; 3] {
        let (mr, nr) = (self.kernel.mr, self.kernel.nr);
        let last = k + self.block >= self.deep;
        let (following, at) = if !last {
            (
                OutputTile {
                    rows: tile.rows.clone(),
                    panels: tile.panels.clone(),
                },
                k + self.block,
            )
        } else {
            // A guess is enough: nothing but time depends on it.
            (
                chunk.tile(next.load(Ordering::Relaxed).min(chunk.tasks - 1), mr),
                0,
            )
        };
        let depth = self.block.min(self.deep - at);
        let b = if j + 1 < tile.panels.end {
            self.b(j + 1, k)
        } else {
            self.b(following.panels.start, at)
        };
        let row_panels = tile.rows.len().div_ceil(mr);
        let b_share = (depth / F::B_KS * nr * size_of::<F::B>()).div_ceil(row_panels);
        let a_share =
            (depth.div_ceil(F::A::KS) * mr * size_of::<F::A>()).div_ceil(tile.panels.len());
        let a = self
            .a(chunk, following.rows.start, at)
            .cast::<u8>()
            .wrapping_add((j - tile.panels.start) * a_share);
        let out = if !last {
            Stream {
                start: a,
                panel: 0,
                bytes: 0,
            }
        } else {
            // As many rows of the output as there are panels of weights, of each MR.
            let row = chunk.row + tile.rows.start + (j - tile.panels.start) % mr;
            let (start, panel, size) = self.finish.place(row, mr, tile.panels.start * nr);
            Stream {
                start,
                panel,
                bytes: tile.panels.len() * nr * size,
            }
        };
        [
            Stream {
                start: a,
                panel: chunk.panel_words * size_of::<F::A>(),
                bytes: a_share,
            },
            Stream {
                start: b.cast(),
                panel: b_share,
                bytes: b_share,
            },
            out,
        ]
    }
}

/// What one block prefetches of an operand: `bytes` bytes in the tile of each row panel. The bytes of the next panel begin
/// `panel` bytes further on.
#[derive(Clone, Copy)]
struct Stream {
    start: *const u8,
    panel: usize,
    bytes: usize,
}

/// All panels of rows of a tile against one block of weights.
struct BlockProduct {
    rows: usize,
    panel_words: usize,
    sums: Sums,
    ahead: [Stream; 3],
}

impl BlockProduct {
    /// # Safety
    /// `steps` words of `b`, `rows` packed rows at `a` and their sums are there.
    #[inline]
    unsafe fn multiply<A, B>(&self, kernel: &Kernel<A, B>, steps: usize, a: *const A, b: *const B) {
        let mr = kernel.mr;
        let prefetches = (steps / kernel.stride).max(1);
        let stride = |bytes: usize| bytes.div_ceil(prefetches).min(64);
        let strides = self.ahead.map(|s| stride(s.bytes));
        for p in 0..self.rows.div_ceil(mr) {
            let rows = mr.min(self.rows - p * mr);
            // SAFETY: the caller's promise; the places ahead are not read.
            unsafe {
                let (a, sums) = (a.add(p * self.panel_words), self.sums.below(p * mr));
                if rows == mr && self.rows > 2 * mr {
                    let ahead = Ahead {
                        places: self.ahead.map(|s| s.start.wrapping_add(p * s.panel)),
                        strides,
                    };
                    (kernel.ahead)(&ahead, steps, a, b, &sums);
                } else {
                    (kernel.tile(rows))(steps, a, b, &sums);
                }
            }
        }
    }
}

/// Memory of the workers of one call: for each a tile of sums and a widened block.
pub(super) struct TileScratch {
    buffer: Buffer,
    sums: usize,
    block: usize,
    pub(super) workers: usize,
}

/// The memory of one worker.
pub(super) struct Piece {
    sums: *mut f32,
    block: *mut f32,
}

impl TileScratch {
    /// For tiles of `plan` in blocks of `depth` k.
    pub(super) fn new<F: Form>(
        plan: &TilePlan,
        mr: usize,
        nr: usize,
        depth: usize,
    ) -> Result<Self> {
        // NR is at least 16 f32, a cache line: workers share none.
        let sums = plan.row_panels * mr * plan.column_panels * nr;
        let block = if F::NARROW { depth * nr } else { 0 };
        let workers = rayon::current_num_threads().min(plan.chunk_tasks);
        let buffer = Buffer::of::<f32>("linear sums", &[workers, sums + block])?;
        Ok(Self {
            buffer,
            sums,
            block,
            workers,
        })
    }

    pub(super) fn of(&self, worker: usize) -> Piece {
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
