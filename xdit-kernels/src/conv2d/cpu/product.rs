//! The micro-kernel of both algorithms: products of pixels and packed weights, summed over channels and taps.

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
    /// What to prefetch into the second-level cache meanwhile, and how far to move on at each product.
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
    let group = (CHAIN / S::LANES / walk.taps.len()).max(1);
    let mut ahead = walk.ahead;
    let mut block = 0;
    while block < walk.blocks {
        let (first, end) = (block == 0, (block + group).min(walk.blocks));
        // SAFETY: the caller's promise; every step advances by the layout that `walk` describes.
        unsafe {
            let mut acc = [[S::zero(); NV]; MR];
            while block < end {
                let n = if block + 1 == walk.blocks {
                    walk.last
                } else {
                    S::LANES
                };
                for &tap in walk.taps {
                    let row = a.add(block * walk.step + tap);
                    if S::LANE_PRODUCTS && W::OF_WEIGHTS == 1 {
                        S::add_steps(&mut acc, n, row, S::LANES, b);
                        b = b.add(n * NV * S::LANES);
                        continue;
                    }
                    for k in 0..n.div_ceil(W::OF_WEIGHTS) {
                        prefetch(ahead);
                        ahead = ahead.wrapping_add(walk.ahead_step);
                        W::multiply::<S, MR, NV>(&mut acc, row, k, b);
                        b = b.add(NV * S::LANES);
                    }
                }
                block += 1;
            }
            for i in 0..MR {
                for j in 0..NV {
                    let p = c.add(i * c_row + j * S::LANES);
                    S::store(
                        p,
                        if first {
                            acc[i][j]
                        } else {
                            S::add(S::load(p), acc[i][j])
                        },
                    );
                }
            }
        }
    }
}
