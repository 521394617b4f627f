//! Winograd F(4×4, 3×3): computes 4×4 outputs from a tile of 6×6 inputs, with 36 products a channel instead of 144.
//!
//! A task computes a block of tiles, in raster order, in groups of MR, the number of rows of the micro-kernel. It transforms
//! their inputs to V `[group][6·6][ic block][MR][lane]`, multiplies each of the 36 matrices by its transformed weights to
//! M `[group][6·6][panel][MR][oc in panel]`, and transforms M to the outputs.

use super::{
    call::ConvCall,
    pack::{PANEL, lanes},
    product::{TapWalk, product},
    transform::{transform_in, transform_out},
    words::SingleChannels,
};
use crate::{
    Tier,
    simd::{Lane, Simd, microkernel::Micro, tiered},
};
use std::ops::Range;

/// Elements of scratch (V and M) of a block at most, where a group takes no more: 8 MiB.
const SCRATCH: usize = 1 << 21;
/// Most groups in a block: V and M then stay in a second-level cache of 2 MiB up to 128 channels.
const MAX_GROUPS: usize = 4;

/// Rows of the micro-kernel by lanes.
const fn rows(lanes: usize) -> usize {
    if lanes == 16 { 14 } else { 6 }
}

/// How the tiles are distributed. Sizes depend on the shapes and on the threads of the pool. The result of a tile depends on
/// neither, nor on its neighbours in the block. Lengths are in f32.
pub(super) struct WinogradPlan {
    /// Blocks of a picture. A block belongs to one picture of a batch.
    blocks: usize,
    /// Groups of a picture. Blocks consist of groups; the last group may be short.
    groups: usize,
    /// Tiles in a row and in a column of the output.
    nx: usize,
    ny: usize,
    /// From one of the 36 matrices to the next, in V and in M: an odd number of vectors, so that the 36 do not fall on
    /// the same lines of a cache.
    v_step: usize,
    m_step: usize,
    /// A pixel of the padding.
    zeros: usize,
    mr: usize,
}

impl WinogradPlan {
    pub(super) fn new<T>(call: &ConvCall<'_, T>) -> Self {
        let lanes = lanes(call.packed.tier);
        let mr = rows(lanes);
        let (ic, oc) = (
            call.ic.next_multiple_of(lanes),
            call.oc.next_multiple_of(lanes),
        );
        let most = (SCRATCH / (36 * mr * (ic + oc))).clamp(1, MAX_GROUPS);
        let (nx, ny) = (call.ow.div_ceil(4), call.oh.div_ceil(4));
        let groups = (nx * ny).div_ceil(mr);
        Self {
            blocks: blocks(groups, most, rayon::current_num_threads()),
            groups,
            nx,
            ny,
            v_step: ((mr * ic / lanes) | 1) * lanes,
            m_step: ((mr * oc / lanes) | 1) * lanes,
            zeros: ic,
            mr,
        }
    }

    pub(super) fn tasks<T>(&self, call: &ConvCall<'_, T>) -> usize {
        call.batch * self.blocks
    }

    /// Groups in the largest block.
    fn most_groups(&self) -> usize {
        self.groups.div_ceil(self.blocks)
    }

    /// The tiles of a block, counted in raster order.
    fn tiles(&self, block: usize) -> Range<usize> {
        // In 128 bits: the product of two counts.
        let start = |block: usize| {
            let groups = block as u128 * self.groups as u128 / self.blocks as u128;
            groups as usize * self.mr
        };
        start(block)..start(block + 1).min(self.nx * self.ny)
    }

    pub(super) fn scratch_len(&self) -> usize {
        self.zeros + self.most_groups() * 36 * (self.v_step + self.m_step)
    }
}

/// Number of blocks of at most `most` groups in a picture: a multiple of the threads where there are enough groups.
fn blocks(groups: usize, most: usize, threads: usize) -> usize {
    let blocks = groups.div_ceil(most);
    blocks.next_multiple_of(threads).min(groups)
}

/// One task: tiles `first..first + count` of a picture, and the parts of the scratch.
struct TileBlock {
    batch: usize,
    first: usize,
    count: usize,
    zeros: *mut f32,
    v: *mut f32,
    m: *mut f32,
}

impl TileBlock {
    /// The first output pixel of tile `t` of the block.
    #[inline(always)]
    fn corner(&self, plan: &WinogradPlan, t: usize) -> [usize; 3] {
        let t = self.first + t;
        [self.batch, t / plan.nx * 4, t % plan.nx * 4]
    }
}

/// One block of tiles of the output.
///
/// # Safety
/// The call's pointers reach its shapes; `scratch` holds the plan's length and is this task's own; no other task has this
/// index.
pub(super) unsafe fn block<T: Lane>(
    tier: Tier,
    call: &ConvCall<'_, T>,
    plan: &WinogradPlan,
    scratch: *mut f32,
    task: usize,
) {
    let tiles = plan.tiles(task % plan.blocks);
    // The zeros, V and M lie one after another.
    let v = scratch.wrapping_add(plan.zeros);
    let block = TileBlock {
        batch: task / plan.blocks,
        first: tiles.start,
        count: tiles.len(),
        zeros: scratch,
        v,
        m: v.wrapping_add(plan.most_groups() * 36 * plan.v_step),
    };
    let sizes = Sizes {
        ic: call.ic,
        oc: call.oc,
        weights: call.packed.ptr(),
    };
    // SAFETY: the caller's promise; the block's parts are inside the scratch; V is written before it is read, M likewise.
    unsafe {
        transform_inputs(tier, call, plan, &block);
        multiply(tier, sizes, plan, &block);
        transform_outputs(tier, call, plan, &block);
    }
}

/// The sizes and weights that the products need.
#[derive(Clone, Copy)]
struct Sizes {
    ic: usize,
    oc: usize,
    weights: *const f32,
}

#[inline(always)]
unsafe fn inputs<S: Simd, T: Lane>(call: &ConvCall<'_, T>, plan: &WinogradPlan, block: &TileBlock) {
    let mr = rows(S::LANES);
    let blocks = call.ic.div_ceil(S::LANES);
    // SAFETY: the zeros are as long as a pixel (of f32, so of any dtype); V has a place for each tile of the last group.
    unsafe {
        for i in 0..blocks {
            S::store(block.zeros.add(i * S::LANES), S::zero());
        }
        for t in 0..block.count.next_multiple_of(mr) {
            let to = block.v.add(t / mr * 36 * plan.v_step + t % mr * S::LANES);
            if t < block.count {
                let zeros = block.zeros.cast_const().cast::<T>();
                transform_in::<S, T>(
                    call,
                    block.corner(plan, t),
                    zeros,
                    to,
                    mr * S::LANES,
                    plan.v_step,
                );
            } else {
                for xi in 0..36 {
                    for i in 0..blocks {
                        S::store(to.add(xi * plan.v_step + i * mr * S::LANES), S::zero());
                    }
                }
            }
        }
    }
}
tiered!(
    fn transform_inputs[T: Lane][T](call: &ConvCall<'_, T>, plan: &WinogradPlan, block: &TileBlock) = inputs
);

#[inline(always)]
unsafe fn products<S: Micro>(sizes: Sizes, plan: &WinogradPlan, block: &TileBlock) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if S::LANES == 16 {
            products_of::<S, { rows(16) }, { rows(16) / 2 }>(sizes, plan, block);
        } else {
            products_of::<S, { rows(8) }, { rows(8) / 2 }>(sizes, plan, block);
        }
    }
}
tiered!(
    fn multiply(sizes: Sizes, plan: &WinogradPlan, block: &TileBlock) = products
);

/// M = V·U for each of the 36 points, panel by panel. A last group that is at most half full takes HALF rows.
#[inline(always)]
unsafe fn products_of<S: Micro, const MR: usize, const HALF: usize>(
    sizes: Sizes,
    plan: &WinogradPlan,
    block: &TileBlock,
) {
    let Sizes { ic, oc, weights } = sizes;
    let (blocks, vectors) = (ic.div_ceil(S::LANES), oc.div_ceil(S::LANES));
    let groups = block.count.div_ceil(MR);
    let weights_of = |xi: usize, vector: usize| {
        let width = PANEL.min(vectors - vector);
        weights.wrapping_add((vector * 36 + xi * width) * S::LANES * ic)
    };
    for xi in 0..36 {
        for vector in (0..vectors).step_by(PANEL) {
            let width = PANEL.min(vectors - vector);
            let u = weights_of(xi, vector);
            let next = if vector + PANEL < vectors {
                weights_of(xi, vector + PANEL)
            } else {
                weights_of((xi + 1).min(35), 0)
            };
            for g in 0..groups {
                let ahead_step = (PANEL * S::LANES).div_ceil(groups);
                let walk = TapWalk {
                    taps: &[0],
                    blocks,
                    step: MR * S::LANES,
                    last: ic - (blocks - 1) * S::LANES,
                    ahead: next.wrapping_add(g * ahead_step * ic),
                    ahead_step,
                };
                // SAFETY: the group's rows lie in V and M; the panel holds 36 matrices of ic rows of its vectors.
                unsafe {
                    let a = block.v.add((g * 36 + xi) * plan.v_step);
                    let c = block
                        .m
                        .add((g * 36 + xi) * plan.m_step + vector * MR * S::LANES);
                    match (block.count - g * MR > HALF, width == PANEL) {
                        (true, true) => {
                            product::<S, SingleChannels, MR, PANEL>(a, walk, u, c, PANEL * S::LANES)
                        }
                        (true, false) => {
                            product::<S, SingleChannels, MR, 1>(a, walk, u, c, S::LANES)
                        }
                        (false, true) => product::<S, SingleChannels, HALF, PANEL>(
                            a,
                            walk,
                            u,
                            c,
                            PANEL * S::LANES,
                        ),
                        (false, false) => {
                            product::<S, SingleChannels, HALF, 1>(a, walk, u, c, S::LANES)
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn outputs<S: Simd, T: Lane>(
    call: &ConvCall<'_, T>,
    plan: &WinogradPlan,
    block: &TileBlock,
) {
    let mr = rows(S::LANES);
    let vectors = call.oc.div_ceil(S::LANES);
    for t in 0..block.count {
        for vector in 0..vectors {
            let panel = vector / PANEL * PANEL;
            let width = PANEL.min(vectors - panel);
            let at = panel * mr + t % mr * width + vector - panel;
            // SAFETY: the products wrote the tile's sums there.
            unsafe {
                let from = block.m.add(t / mr * 36 * plan.m_step + at * S::LANES);
                transform_out::<S, T>(call, block.corner(plan, t), vector, from, plan.m_step);
            }
        }
    }
}
tiered!(
    fn transform_outputs[T: Lane][T](call: &ConvCall<'_, T>, plan: &WinogradPlan, block: &TileBlock) = outputs
);

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn blocks_share_out_evenly() {
        // 512 channels at 64 x 64: 256 tiles are 19 groups; six blocks of 3 or 4, not five of which one thread takes three.
        assert_eq!(blocks(19, 4, 2), 6);
        for threads in [1, 2, 3, 16, 100] {
            for groups in [1, 2, 19, 74, 293, 1171] {
                let n = blocks(groups, 4, threads);
                assert!(n.is_multiple_of(threads) || n == groups, "{n}");
                assert!(groups.div_ceil(n) <= 4, "{n}");
            }
        }
    }
}
