//! The direct algorithm: an implicit GEMM over a copied tile of the input.
//!
//! The tile is copied as `[ic block][phase][row][column][lane]`, where phase (r mod stride, c mod stride) holds every
//! stride-th row and column. Under one tap, the inputs of neighbouring outputs are then neighbouring pixels, whatever the
//! stride, so that MR outputs in a row read MR pixels in a row. Such a row continues over the ends of lines, where a few
//! outputs are computed and dropped.
//!
//! The pixels are multiplied strip by strip, and a strip by one part of a panel of the weights after another: as many blocks of
//! channels as stay in a first-level cache, while the pixels come from the second level. Sums are kept in between. The parts
//! divide chains that the sums consist of anyway, so that a sum does not depend on them.
//!
//! Where the tier multiplies pairs of bf16 and weights and input are bf16, a word of the copy holds two channels: `[lane / 2]`
//! words a pixel. An input of another dtype is copied in f32, and the weights are widened.

use super::{
    call::{ConvCall, ConvTile},
    narrow,
    pack::{PANEL, PanelOrder, lanes},
    product::{TapWalk, WalkPart, add_part, prefetch},
    words::{ChannelPairs, ChannelWords, SingleChannels, WideChannelPairs},
};
use crate::{
    DType, Error, Result,
    simd::{Lane, microkernel::Micro, tiered},
};

/// Target for the elements of scratch of a tile: 0.5 MiB, a part of every second-level cache.
const SCRATCH: usize = 1 << 17;
/// Most output pixels in a tile, so that a picture makes enough tasks.
const PIXELS: usize = 2048;
/// Longest rows of a tile, in output pixels, under a kernel of one pixel and for few output channels.
const LONG: usize = 128;
/// The same under a larger kernel, by the stride. Shorter rows make a tile of more of them, which shares more of the input that
/// the kernel reaches beyond it; longer ones drop fewer outputs at their ends.
const SHORT: usize = 64;
/// Room behind the last row: the most rows that a micro-kernel takes.
const SLACK: usize = 16;
/// Output pixels of a strip, for which the parts of the weights are read again: a multiple of every tier's micro-kernel.
const STRIP: usize = 84;
/// Most words of a part of a panel of weights, which stays in a first-level cache beside the pixels of a micro-kernel: 20 KiB.
const PART: usize = 5 << 10;
/// Distance in pixels at which the copy of the input prefetches.
const AHEAD: usize = 12;

/// How a strip of output pixels is multiplied.
#[derive(Clone, Copy)]
struct Strip<'a> {
    parts: &'a [WalkPart],
    /// The sums of the pixels.
    sums: *mut f32,
    /// Their chains that are not at their end.
    chains: *mut f32,
}

/// Sizes of the tiles, which depend on the shapes of the call alone.
pub(super) struct DirectPlan {
    th: usize,
    tw: usize,
    lanes: usize,
}

impl DirectPlan {
    pub(super) fn new<T>(call: &ConvCall<'_, T>) -> Self {
        let lanes = lanes(call.packed.tier);
        let channels = call.ic.next_multiple_of(lanes);
        let per_pixel = channels.saturating_mul(call.stride.saturating_mul(call.stride));
        let pixels = (SCRATCH / per_pixel).clamp(16, PIXELS);
        let widest = match (call.packed.order, call.packed.shape) {
            (PanelOrder::Narrow, _) | (_, [_, _, 1, 1]) => LONG,
            _ => (SHORT / call.stride).max(16),
        };
        let tw = call.ow.div_ceil(call.ow.div_ceil(pixels.min(widest)));
        let th = (pixels / tw).clamp(1, call.oh);
        Self { th, tw, lanes }
    }

    fn tiles<T>(&self, call: &ConvCall<'_, T>) -> (usize, usize) {
        (call.oh.div_ceil(self.th), call.ow.div_ceil(self.tw))
    }

    pub(super) fn tasks<T>(&self, call: &ConvCall<'_, T>) -> usize {
        let (ny, nx) = self.tiles(call);
        call.batch * ny * nx
    }

    /// Pixels between phases, and columns of a phase, of a tile with `th` rows and `tw` columns.
    fn phase<T>(call: &ConvCall<'_, T>, th: usize, tw: usize) -> (usize, usize) {
        let ([_, _, kh, kw], s) = (call.packed.shape, call.stride);
        let wp = tw + (kw - 1) / s;
        ((th + (kh - 1) / s) * wp, wp)
    }

    /// # Errors
    /// If the stride² phases are larger than memory can be.
    pub(super) fn scratch_len<T>(&self, call: &ConvCall<'_, T>) -> Result<usize> {
        let s = call.stride;
        let (phase, _) = Self::phase(call, self.th, self.tw);
        let pixels = s.checked_mul(s).and_then(|n| n.checked_mul(phase));
        pixels
            .and_then(|n| n.checked_add(SLACK))
            .and_then(|n| n.checked_mul(call.ic.next_multiple_of(self.lanes)))
            .and_then(|n| n.checked_add(2 * STRIP * PANEL * self.lanes))
            .ok_or(Error::OutOfMemory {
                op: "conv2d",
                bytes: usize::MAX,
            })
    }
}

/// Chooses the words by the order of the weights and the dtype of the input.
#[inline(always)]
unsafe fn tile<S: Micro, T: Lane>(
    call: &ConvCall<'_, T>,
    plan: &DirectPlan,
    scratch: *mut f32,
    task: usize,
) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if call.packed.order != PanelOrder::DirectPairs {
            return tile_of::<S, T, SingleChannels>(call, plan, scratch, task);
        }
        // Only AVX512-BF16 packs pairs. Inputs of another dtype run the code of AVX-512 there, whose vectors are as long.
        // Constants, so that each tier and dtype is compiled for one kind of words at most.
        match (T::DTYPE == DType::BF16, S::DOTS, S::LANES) {
            (true, true, _) => tile_of::<S, T, ChannelPairs>(call, plan, scratch, task),
            (false, _, 16) => tile_of::<S, T, WideChannelPairs>(call, plan, scratch, task),
            _ => unreachable!("only a tier with products of pairs packs pairs"),
        }
    }
}

#[inline(always)]
unsafe fn tile_of<S: Micro, T: Lane, W: ChannelWords>(
    call: &ConvCall<'_, T>,
    plan: &DirectPlan,
    scratch: *mut f32,
    task: usize,
) {
    let (ny, nx) = plan.tiles(call);
    let (batch, y0, x0) = (
        task / (ny * nx),
        task / nx % ny * plan.th,
        task % nx * plan.tw,
    );
    let (th, tw) = (plan.th.min(call.oh - y0), plan.tw.min(call.ow - x0));
    let ([_, _, kh, kw], s) = (call.packed.shape, call.stride);
    let (phase, wp) = DirectPlan::phase(call, th, tw);
    let tile = ConvTile {
        batch,
        y0,
        x0,
        th,
        tw,
        wp,
    };
    let (blocks, step) = (
        call.ic.div_ceil(S::LANES),
        (phase * s * s + SLACK) * W::pixel::<S>(),
    );
    let last = call.ic - (blocks - 1) * S::LANES;
    for (py, px) in (0..s * s).map(|p| (p / s, p % s)) {
        // SAFETY: the phases lie one after another in each block.
        unsafe {
            let to = scratch.add((py * s + px) * phase * W::pixel::<S>());
            fill_phase::<S, T, W>(call, tile, [py, px], phase, to, step);
        }
    }
    for block in 0..blocks {
        for pixel in phase * s * s..phase * s * s + SLACK {
            // SAFETY: the slack lies behind the phases of each block.
            unsafe { clear::<S, W>(scratch.add(block * step + pixel * W::pixel::<S>())) };
        }
    }
    let taps: Vec<usize> = (0..kh * kw)
        .map(|t| (t / kw, t % kw))
        .map(|(y, x)| (((y % s) * s + x % s) * phase + (y / s) * wp + x / s) * W::pixel::<S>())
        .collect();
    let walk = TapWalk {
        taps: &taps,
        blocks,
        step,
        last,
        ahead: scratch,
        ahead_step: 0,
    };
    let sums = scratch.wrapping_add(blocks * step);
    let words = taps.len() * S::LANES / W::OF_WEIGHTS * PANEL * S::LANES;
    let strip = Strip {
        parts: &walk.parts(S::LANES, PART / words),
        chains: sums.wrapping_add(STRIP * PANEL * S::LANES),
        sums,
    };
    // SAFETY: the scratch is filled as `walk` describes, and holds the strip behind that; the caller vouches for the rest.
    unsafe {
        match (call.packed.order, S::LANES) {
            (PanelOrder::Narrow, _) => narrow::channels::<S, T>(call, walk, scratch, tile),
            (_, 16) => panels::<S, T, W, 14>(call, walk, scratch, strip, tile),
            _ => panels::<S, T, W, 6>(call, walk, scratch, strip, tile),
        }
    }
}

/// Zeros for the channels of a pixel in one block.
#[inline(always)]
unsafe fn clear<S: Micro, W: ChannelWords>(to: *mut f32) {
    // SAFETY: the caller's promise: room for a pixel.
    unsafe { to.write_bytes(0, W::pixel::<S>()) }
}

/// Copies the pixels of one phase (rows py, py + stride, …), `len` in all, to `to`; blocks of channels are `step` apart.
#[inline(always)]
unsafe fn fill_phase<S: Micro, T: Lane, W: ChannelWords>(
    call: &ConvCall<'_, T>,
    tile: ConvTile,
    [py, px]: [usize; 2],
    len: usize,
    to: *mut f32,
    step: usize,
) {
    let s = call.stride;
    let [_, _, kh, _] = call.packed.shape;
    let rows = (tile.th - 1) * s + kh;
    let (whole, last) = (call.ic / S::LANES, call.ic % S::LANES);
    for row in 0..len / tile.wp {
        let y = tile.y0 * s + row * s + py;
        for column in 0..tile.wp {
            // The last row of a phase may lie behind the last one that a tap reads.
            let pixel = match row * s + py < rows {
                true => call.pixel(tile.batch, y, tile.x0 * s + column * s + px),
                false => None,
            };
            let to = to.wrapping_add((row * tile.wp + column) * W::pixel::<S>());
            // SAFETY: row and column are inside the phase; `pixel` reaches ic channels.
            unsafe {
                match pixel {
                    None => {
                        for block in 0..whole + usize::from(last > 0) {
                            clear::<S, W>(to.add(block * step));
                        }
                    }
                    Some(p) => {
                        for block in 0..whole {
                            let p = p.add(block * S::LANES);
                            prefetch(p.wrapping_add(AHEAD * call.x_strides[2]).cast());
                            W::copy::<S, T>(p, S::LANES, to.add(block * step));
                        }
                        if last > 0 {
                            let p = p.add(whole * S::LANES);
                            W::copy::<S, T>(p, last, to.add(whole * step));
                        }
                    }
                }
            }
        }
    }
}

/// All output channels of a tile, panel by panel.
#[inline(always)]
unsafe fn panels<S: Micro, T: Lane, W: ChannelWords, const MR: usize>(
    call: &ConvCall<'_, T>,
    walk: TapWalk<'_>,
    scratch: *const f32,
    strip: Strip<'_>,
    tile: ConvTile,
) {
    let vectors = call.oc.div_ceil(S::LANES);
    let mut v = 0;
    while v < vectors {
        // SAFETY: a panel of the weights starts after v vectors of them.
        unsafe {
            let b = call
                .packed
                .ptr()
                .add(v * S::LANES * walk.taps.len() * call.ic.div_ceil(W::OF_WEIGHTS));
            if v + PANEL <= vectors {
                rows::<S, T, W, MR, PANEL>(call, walk, scratch, strip, b, v, tile);
            } else {
                rows::<S, T, W, MR, 1>(call, walk, scratch, strip, b, v, tile);
            }
        }
        v += PANEL;
    }
}

#[inline(always)]
unsafe fn rows<S: Micro, T: Lane, W: ChannelWords, const MR: usize, const NV: usize>(
    call: &ConvCall<'_, T>,
    walk: TapWalk<'_>,
    scratch: *const f32,
    strip: Strip<'_>,
    b: *const f32,
    v: usize,
    tile: ConvTile,
) {
    const { assert!(MR <= SLACK, "rows past the end stay in the slack") };
    const { assert!(STRIP.is_multiple_of(MR), "a strip is whole tiles") };
    let ConvTile {
        batch,
        y0,
        x0,
        th,
        tw,
        wp,
    } = tile;
    let count = (th - 1) * wp + tw;
    let width = NV * S::LANES;
    // SAFETY: the panel's vectors exist.
    let biases: [_; NV] = std::array::from_fn(|j| unsafe { call.bias::<S>(v + j) });
    let (mut y, mut x) = (0, 0);
    for first in (0..count).step_by(STRIP) {
        let end = (first + STRIP).min(count);
        for &part in strip.parts {
            let words = part.start * walk.taps.len() * (S::LANES / W::OF_WEIGHTS);
            let weights = b.wrapping_add(words * width);
            for p0 in (first..end).step_by(MR) {
                let at = (p0 - first) * width;
                if part.end == walk.blocks {
                    // Where these sums will be stored. The first of them may be one that is dropped, which has no place.
                    let x = (x0 + p0 % wp).min(call.ow - 1);
                    let [at, _] = call.place(batch, y0 + p0 / wp, x, v, S::LANES);
                    for i in 0..MR {
                        let pixel = at.wrapping_add(i.wrapping_mul(call.out_strides[2]));
                        prefetch(call.out.ptr().wrapping_add(pixel).cast_const().cast());
                    }
                }
                // SAFETY: p0 < count, and the scratch has room for MR rows after any output, under every tap. What the
                // rows past `count` read is the slack or another tap's pixels; it is not stored. The sums of the strip
                // hold a multiple of MR rows of NV vectors, and so do its chains.
                unsafe {
                    add_part::<S, W, MR, NV>(
                        scratch.add(p0 * W::pixel::<S>()),
                        walk,
                        part,
                        weights,
                        strip.chains.add(at),
                        strip.sums.add(at),
                    );
                }
            }
        }
        for p in 0..end - first {
            if y < th && x < tw {
                for (j, (bias, n)) in biases.into_iter().enumerate() {
                    let at = call.place(batch, y0 + y, x0 + x, v + j, S::LANES);
                    // SAFETY: y0 + y < oh and x0 + x < ow; tiles are disjoint; the sum is a vector of the strip.
                    unsafe {
                        let sum = S::load(strip.sums.add(p * width + j * S::LANES));
                        call.store::<S>(at, n, bias, sum);
                    }
                }
            }
            x += 1;
            if x == wp {
                (y, x) = (y + 1, 0);
            }
        }
    }
}

tiered!(
    /// One tile of the output.
    ///
    /// # Safety
    /// The call's pointers reach its shapes; `scratch` holds the plan's length and is this task's own; no other task has
    /// this index.
    pub(super) fn block[T: Lane][T](call: &ConvCall<'_, T>, plan: &DirectPlan, scratch: *mut f32, task: usize) = tile
);
