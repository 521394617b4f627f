//! What both algorithms share: the call's sizes, work distribution, the micro-kernel, loads and stores of pixels.

#![allow(
    clippy::needless_range_loop,
    reason = "indices of register arrays: iterators over them end up in memory"
)]

use super::{Conv2d, direct, pack::Kind, winograd};
use crate::{
    Result, Tier, View, ViewMut,
    dtype::by_float,
    layout,
    simd::{Lane, Shared, Simd},
    storage::Buffer,
};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lanes of a tier's vectors, by which channels are blocked.
pub(super) fn lanes(tier: Tier) -> usize {
    match tier {
        Tier::Avx512 | Tier::Avx512Bf16 => 16,
        Tier::Avx2 | Tier::Portable => 8,
    }
}

/// One call: pointers, strides in elements, sizes. `h` and `w` are of the (possibly doubled) input.
pub(super) struct Call<'a, T> {
    pub(super) conv: &'a Conv2d,
    pub(super) x: *const T,
    pub(super) x_strides: [usize; 3],
    pub(super) residual: Option<*const T>,
    pub(super) residual_strides: [usize; 3],
    pub(super) out: Shared<T>,
    pub(super) out_strides: [usize; 3],
    pub(super) batch: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Rows of padding above the first output row's input; wraps below 0 where a window starts further down.
    pub(super) top: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
    pub(super) ic: usize,
    pub(super) oc: usize,
    /// Distance of neighbouring outputs in the input; 1 where there is one output, whatever it was said to be. So it is no
    /// larger than the padded input.
    pub(super) stride: usize,
}

// SAFETY: the pointers are of a View (shared borrow) and a ViewMut (exclusive borrow) that outlive the call; tasks write
// disjoint output pixels.
unsafe impl<T> Sync for Call<'_, T> {}

fn head(strides: &[usize]) -> [usize; 3] {
    [strides[0], strides[1], strides[2]]
}

/// The output's rows from `first` on, as many as `out` has. Shapes are checked, nothing is empty.
pub(super) fn run(
    conv: &Conv2d,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    out: ViewMut<'_>,
) -> Result<()> {
    let (x_copy, residual_copy);
    let (mut x, mut residual) = (x, residual);
    if x.strides()[3] != 1 {
        x_copy = layout::contiguous(x)?;
        x = x_copy.view();
    }
    if let Some(r) = residual.filter(|r| r.strides()[3] != 1) {
        residual_copy = layout::contiguous(r)?;
        residual = Some(residual_copy.view());
    }
    by_float!("conv2d", x.dtype(), T => typed::<T>(conv, x, residual, first, out))
}

fn typed<T: Lane>(
    conv: &Conv2d,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let scale = if conv.options.upsample { 2 } else { 1 };
    let call = Call::<T> {
        conv,
        x: x.ptr().cast(),
        x_strides: head(x.strides()),
        residual: residual.map(|r| r.ptr().cast()),
        residual_strides: residual.map_or([0; 3], |r| head(r.strides())),
        out_strides: head(out.strides()),
        batch: out.shape()[0],
        h: x.dim(1) * scale,
        w: x.dim(2) * scale,
        top: (conv.options.padding.top).wrapping_sub(first * conv.options.stride),
        oh: out.shape()[1],
        ow: out.shape()[2],
        ic: conv.shape[1],
        oc: conv.shape[0],
        stride: match (out.shape()[1], out.shape()[2]) {
            (1, 1) => 1,
            _ => conv.options.stride,
        },
        out: Shared(out.ptr().cast()),
    };
    let tier = conv.device.tier();
    if conv.packed.kind == Kind::Winograd {
        let plan = winograd::Plan::new(&call);
        distribute(plan.tasks(&call), plan.scratch_len(), |scratch, task| {
            // SAFETY: the scratch has the plan's length, the call's pointers reach its shapes, and tasks write disjoint
            // tiles of the output.
            unsafe { winograd::block(tier, &call, &plan, scratch, task) }
        })
    } else {
        let plan = direct::Plan::new(&call);
        distribute(
            plan.tasks(&call),
            plan.scratch_len(&call)?,
            |scratch, task| {
                // SAFETY: as above.
                unsafe { direct::block(tier, &call, &plan, scratch, task) }
            },
        )
    }
}

/// Runs `task(scratch, 0..count)` on the current pool. Each thread has one scratch of `scratch_len` f32, uninitialised or
/// as its last task left it.
fn distribute(
    count: usize,
    scratch_len: usize,
    task: impl Fn(*mut f32, usize) + Sync,
) -> Result<()> {
    let workers = rayon::current_num_threads().min(count).max(1);
    // A cache line between the scratches.
    let stride = (scratch_len / 16).saturating_add(2).saturating_mul(16);
    let buffer = Buffer::of::<f32>("conv2d", &[workers, stride])?;
    let scratch = Shared(buffer.ptr().cast::<f32>());
    let next = AtomicUsize::new(0);
    (0..workers)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|worker| {
            // SAFETY: worker < workers, so the offset is inside the buffer; each worker has its own part.
            let own = unsafe { scratch.ptr().add(worker * stride) };
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                task(own, index);
            }
        });
    Ok(())
}

/// How the micro-kernel walks its input: rows are `S::LANES` apart; for each block of channels and each tap, `LANES`
/// (at the end `last`) products a row.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    /// Offsets of the taps from the first row.
    pub(super) taps: &'a [usize],
    pub(super) blocks: usize,
    /// Distance of the blocks of channels.
    pub(super) step: usize,
    /// Channels in the last block, 1..=LANES.
    pub(super) last: usize,
    /// What to bring into the second-level cache meanwhile, and how far to go on at each product.
    pub(super) ahead: *const f32,
    pub(super) ahead_step: usize,
}

/// Products summed before they are added to the total: bounds the rounding error of long sums.
const CHAIN: usize = 512;

/// A hint: nothing is read, the address may be any.
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
/// `a` reaches what `walk` says for MR rows, `b` as many rows of NV vectors as there are products, `c` the MR rows.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const MR: usize, const NV: usize>(
    a: *const f32,
    walk: Walk<'_>,
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
                    for k in 0..n {
                        prefetch(ahead);
                        ahead = ahead.wrapping_add(walk.ahead_step);
                        let w: [S::V; NV] = std::array::from_fn(|j| S::load(b.add(j * S::LANES)));
                        for i in 0..MR {
                            let v = S::splat(*row.add(i * S::LANES + k));
                            for j in 0..NV {
                                acc[i][j] = S::fma(v, w[j], acc[i][j]);
                            }
                        }
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

impl<T: Lane> Call<'_, T> {
    /// Pixels of the doubled input to those in memory.
    #[inline(always)]
    pub(super) fn shift(&self) -> usize {
        usize::from(self.conv.options.upsample)
    }

    /// Where pixel (y, x) of the padded, possibly doubled input lies; `None` in the padding. Coordinates count from the
    /// corner of the first output's input.
    #[inline(always)]
    pub(super) fn pixel(&self, batch: usize, y: usize, x: usize) -> Option<*const T> {
        let left = self.conv.options.padding.left;
        let (y, x) = (y.wrapping_sub(self.top), x.wrapping_sub(left));
        if y >= self.h || x >= self.w {
            return None;
        }
        let shift = self.shift();
        let [sb, sy, sx] = self.x_strides;
        Some(
            self.x
                .wrapping_add(batch * sb + (y >> shift) * sy + (x >> shift) * sx),
        )
    }

    /// Where vector `v` of output channels of a pixel lies, in the output and in the residual.
    #[inline(always)]
    pub(super) fn place(
        &self,
        batch: usize,
        y: usize,
        x: usize,
        v: usize,
        lanes: usize,
    ) -> [usize; 2] {
        [self.out_strides, self.residual_strides]
            .map(|s| batch * s[0] + y * s[1] + x * s[2] + v * lanes)
    }

    /// Adds bias and residual to a vector of output channels, `n` of which there are, and stores it.
    ///
    /// # Safety
    /// `at` is a place inside the output and the residual that nobody else writes, with `n` channels from there on.
    #[inline(always)]
    pub(super) unsafe fn store<S: Simd>(&self, at: [usize; 2], n: usize, bias: S::V, sum: S::V) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = S::add(sum, bias);
            let out = self.out.ptr().add(at[0]);
            if n == S::LANES {
                if let Some(r) = self.residual {
                    sum = S::add(sum, T::load::<S>(r.add(at[1])));
                }
                T::store::<S>(out, sum);
            } else {
                if let Some(r) = self.residual {
                    sum = S::add(sum, T::load_n::<S>(r.add(at[1]), n));
                }
                T::store_n::<S>(out, n, sum);
            }
        }
    }

    /// The bias of vector `v` of output channels, and how many channels it has.
    #[inline(always)]
    pub(super) unsafe fn bias<S: Simd>(&self, v: usize) -> (S::V, usize) {
        // SAFETY: the bias is padded to whole vectors.
        let bias = unsafe { S::load(self.conv.bias.as_ptr().add(v * S::LANES)) };
        (bias, (self.oc - v * S::LANES).min(S::LANES))
    }
}
