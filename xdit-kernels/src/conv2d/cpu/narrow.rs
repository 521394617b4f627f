//! The direct algorithm for few output channels, such as the colours that the last convolution of a decoder computes. Its lanes
//! are input channels, since panels of output channels would be mostly empty.

#![allow(
    clippy::needless_range_loop,
    reason = "indices of register arrays: iterators over them end up in memory"
)]

use super::{
    call::{ConvCall, ConvTile},
    product::TapWalk,
};
use crate::{
    conv2d::options::FEW_OUTPUTS,
    simd::{Lane, Simd, transpose::MAX_LANES},
};

/// Output pixels at a time: with four output channels their sums stay in registers.
const fn pixels(lanes: usize) -> usize {
    if lanes == 16 { 6 } else { 2 }
}

const _: () = assert!(FEW_OUTPUTS <= 4, "`channels` knows up to four");

/// All output channels of a tile.
///
/// # Safety
/// The scratch holds the tile's input as `walk` describes; the output's pixels are this task's own.
#[inline(always)]
pub(super) unsafe fn channels<S: Simd, T: Lane>(
    call: &ConvCall<'_, T>,
    walk: TapWalk<'_>,
    scratch: *const f32,
    tile: ConvTile,
) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match (call.oc, S::LANES) {
            (1, 16) => rows::<S, T, { pixels(16) }, 1>(call, walk, scratch, tile),
            (2, 16) => rows::<S, T, { pixels(16) }, 2>(call, walk, scratch, tile),
            (3, 16) => rows::<S, T, { pixels(16) }, 3>(call, walk, scratch, tile),
            (_, 16) => rows::<S, T, { pixels(16) }, 4>(call, walk, scratch, tile),
            (1, _) => rows::<S, T, { pixels(8) }, 1>(call, walk, scratch, tile),
            (2, _) => rows::<S, T, { pixels(8) }, 2>(call, walk, scratch, tile),
            (3, _) => rows::<S, T, { pixels(8) }, 3>(call, walk, scratch, tile),
            (_, _) => rows::<S, T, { pixels(8) }, 4>(call, walk, scratch, tile),
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, T: Lane, const P: usize, const OC: usize>(
    call: &ConvCall<'_, T>,
    walk: TapWalk<'_>,
    scratch: *const f32,
    tile: ConvTile,
) {
    // SAFETY: there is one vector of output channels.
    let (bias, n) = unsafe { call.bias::<S>(0) };
    for y in 0..tile.th {
        for x0 in (0..tile.tw).step_by(P) {
            // SAFETY: each of the P pixels from (y, x0) on has its input in the scratch: past a row's end that of the
            // next row, past the last the slack. The weights hold OC vectors for each block and tap.
            let acc = unsafe {
                let mut acc = [[S::zero(); OC]; P];
                let mut b = call.packed.ptr();
                for block in 0..walk.blocks {
                    for &tap in walk.taps {
                        let a =
                            scratch.add(block * walk.step + tap + (y * tile.wp + x0) * S::LANES);
                        let w: [S::V; OC] = std::array::from_fn(|o| S::load(b.add(o * S::LANES)));
                        for i in 0..P {
                            let v = S::load(a.add(i * S::LANES));
                            for o in 0..OC {
                                acc[i][o] = S::fma(v, w[o], acc[i][o]);
                            }
                        }
                        b = b.add(OC * S::LANES);
                    }
                }
                acc
            };
            for i in 0..P.min(tile.tw - x0) {
                let mut sums = [0f32; MAX_LANES];
                for o in 0..OC {
                    // SAFETY: arithmetic on lanes under the tier's features.
                    sums[o] = unsafe { S::sum(acc[i][o]) };
                }
                let at = call.place(tile.batch, tile.y0 + y, tile.x0 + x0 + i, 0, S::LANES);
                // SAFETY: the pixel is inside the tile; `sums` is a vector long.
                unsafe { call.store::<S>(at, n, bias, S::load(sums.as_ptr())) };
            }
        }
    }
}
