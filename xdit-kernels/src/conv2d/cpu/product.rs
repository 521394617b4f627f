//! The micro-kernel of both algorithms: products of pixels and packed weights, summed over channels and taps, in one go or part
//! by part.

#![allow(
    clippy::needless_range_loop,
    reason = "indices of register arrays: iterators over them end up in memory"
)]

use super::words::ChannelWords;
use crate::simd::microkernel::Micro;

/// How the micro-kernel walks over its input. Rows are one pixel's `LANES` channels apart. Each block of channels and each tap
/// adds `LANES` products to a row; the last block adds `last`.
#[derive(Clone, Copy)]
pub(super) struct TapWalk<'a> {
    /// Offsets of the taps from the first row.
    pub(super) taps: &'a [usize],
    pub(super) blocks: usize,
    /// Distance between the blocks of channels.
    pub(super) step: usize,
    /// Channels in the last block, 1..=LANES.
    pub(super) last: usize,
    /// What [`product`] prefetches into the second-level cache meanwhile, and how far it moves on at each word of weights.
    pub(super) ahead: *const f32,
    pub(super) ahead_step: usize,
}

/// Number of products that are summed before the sum is added to the total. Bounds the rounding error of long sums.
const CHAIN: usize = 512;

/// Prefetches a cache line into the second-level cache. Any address is allowed.
#[inline(always)]
pub(super) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is in every x86-64 and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Blocks of channels of one part of a walk.
#[derive(Clone, Copy)]
pub(super) struct WalkPart {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Blocks in a chain. A part lies in one chain.
    chain: usize,
}

impl TapWalk<'_> {
    /// Blocks of channels in a chain.
    #[inline(always)]
    fn chain(&self, lanes: usize) -> usize {
        (CHAIN / lanes / self.taps.len()).max(1)
    }

    /// The parts of the walk: of at most `most` blocks, which share out a chain evenly.
    pub(super) fn parts(&self, lanes: usize, most: usize) -> Vec<WalkPart> {
        let chain = self.chain(lanes);
        let each = chain.div_ceil(chain.div_ceil(most.max(1)));
        let mut parts = Vec::new();
        for first in (0..self.blocks).step_by(chain) {
            let last = (first + chain).min(self.blocks);
            parts.extend((first..last).step_by(each).map(|start| WalkPart {
                start,
                end: (start + each).min(last),
                chain,
            }));
        }
        parts
    }
}

/// Adds the products of some blocks to MR rows of NV vectors. `b` moves on behind the weights of the blocks, `ahead` behind
/// what was prefetched. `NEAR` prefetches the pixels that follow the rows instead, into the first-level cache.
///
/// # Safety
/// As [`product`]'s, for these blocks.
#[inline(always)]
unsafe fn add_blocks<
    S: Micro,
    W: ChannelWords,
    const MR: usize,
    const NV: usize,
    const NEAR: bool,
>(
    acc: &mut [[S::V; NV]; MR],
    a: *const f32,
    walk: TapWalk<'_>,
    [start, end]: [usize; 2],
    b: &mut *const f32,
    ahead: &mut *const f32,
) {
    let (mut weights, mut far) = (*b, *ahead);
    for block in start..end {
        let n = if block + 1 == walk.blocks {
            walk.last
        } else {
            S::LANES
        };
        for &tap in walk.taps {
            // SAFETY: the caller's promise; every step advances by the layout that `walk` describes.
            unsafe {
                let row = a.add(block * walk.step + tap);
                if S::LANE_PRODUCTS && W::OF_WEIGHTS == 1 {
                    S::add_steps(acc, n, row, S::LANES, weights);
                    weights = weights.add(n * NV * S::LANES);
                    continue;
                }
                for k in 0..n.div_ceil(W::OF_WEIGHTS) {
                    if NEAR {
                        S::prefetch(row.wrapping_add(MR * W::pixel::<S>() + k * 8).cast());
                    } else {
                        prefetch(far);
                        far = far.wrapping_add(walk.ahead_step);
                    }
                    W::multiply::<S, MR, NV>(acc, row, k, weights);
                    weights = weights.add(NV * S::LANES);
                }
            }
        }
    }
    (*b, *ahead) = (weights, far);
}

/// C = Σ over blocks, taps and channels of a·b, for MR rows (of C: `c_row` apart) and NV vectors of output channels.
///
/// # Safety
/// `a` reaches what `walk` says for MR rows, `b` NV vectors for each word of weights, `c` the MR rows.
#[inline(always)]
pub(super) unsafe fn product<S: Micro, W: ChannelWords, const MR: usize, const NV: usize>(
    a: *const f32,
    walk: TapWalk<'_>,
    mut b: *const f32,
    c: *mut f32,
    c_row: usize,
) {
    let chain = walk.chain(S::LANES);
    let mut ahead = walk.ahead;
    for start in (0..walk.blocks).step_by(chain) {
        let blocks = [start, (start + chain).min(walk.blocks)];
        // SAFETY: the caller's promise, passed on.
        unsafe {
            let mut acc = [[S::zero(); NV]; MR];
            add_blocks::<S, W, MR, NV, false>(&mut acc, a, walk, blocks, &mut b, &mut ahead);
            for i in 0..MR {
                for j in 0..NV {
                    let p = c.add(i * c_row + j * S::LANES);
                    S::store(p, total::<S>(start == 0, p, acc[i][j]));
                }
            }
        }
    }
}

/// The sum of a chain, added to the total of the chains before it unless it is the first.
#[inline(always)]
unsafe fn total<S: Micro>(is_first: bool, before: *const f32, chain: S::V) -> S::V {
    // SAFETY: the caller's promise: a vector lies there unless the chain is the first.
    unsafe {
        if is_first {
            chain
        } else {
            S::add(S::load(before), chain)
        }
    }
}

/// The products of one part, for rows as those of [`product`]. `sums` holds MR rows of NV vectors, one after another; `chains`
/// as many, for the chain that the next part continues. After the last part the sums are those of [`product`].
///
/// # Safety
/// As [`product`]'s; `b` lies at the part's weights; all parts before were added to these sums and chains.
#[inline(always)]
pub(super) unsafe fn add_part<S: Micro, W: ChannelWords, const MR: usize, const NV: usize>(
    a: *const f32,
    walk: TapWalk<'_>,
    part: WalkPart,
    mut b: *const f32,
    chains: *mut f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        let mut acc = [[S::zero(); NV]; MR];
        if !part.start.is_multiple_of(part.chain) {
            for i in 0..MR {
                for j in 0..NV {
                    acc[i][j] = S::load(chains.add((i * NV + j) * S::LANES));
                }
            }
        }
        let (blocks, mut ahead) = ([part.start, part.end], walk.ahead);
        add_blocks::<S, W, MR, NV, true>(&mut acc, a, walk, blocks, &mut b, &mut ahead);
        let ends = part.end.is_multiple_of(part.chain) || part.end == walk.blocks;
        for i in 0..MR {
            for j in 0..NV {
                let at = (i * NV + j) * S::LANES;
                if ends {
                    let p = sums.add(at);
                    S::store(p, total::<S>(part.start < part.chain, p, acc[i][j]));
                } else {
                    S::store(chains.add(at), acc[i][j]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHAIN, TapWalk};

    #[test]
    fn parts_divide_chains() {
        for (lanes, taps, blocks, most) in
            [(8, 9, 32, 4), (8, 1, 64, 40), (16, 9, 5, 1), (8, 900, 3, 0)]
        {
            let taps = vec![0; taps];
            let walk = TapWalk {
                taps: &taps,
                blocks,
                step: 0,
                last: lanes,
                ahead: std::ptr::null(),
                ahead_step: 0,
            };
            let chain = (CHAIN / lanes / taps.len()).max(1);
            let parts = walk.parts(lanes, most);
            let mut next = 0;
            for part in &parts {
                assert_eq!(part.start, next, "no block is left out or read twice");
                assert!(part.end > part.start && part.end - part.start <= most.max(1));
                assert_eq!(
                    part.start / chain,
                    (part.end - 1) / chain,
                    "a part lies in one chain"
                );
                next = part.end;
            }
            assert_eq!(next, blocks);
        }
    }
}
