//! NEON with the bf16 instructions of ARMv8.6: products of matrices, and the conversion.

use super::{
    lane::Simd,
    neon::{Eight, LANES, fma_lane, load_first, map, neon, round_f16, widen_f16, zip},
};
use half::{bf16, f16};
use std::arch::{aarch64::*, asm};

/// The same and the bf16 instructions of ARMv8.6.
///
/// Their products do not round to nearest: BFMMLA adds two products, then the result to the sum, twice. Each of these additions
/// rounds to odd (an inexact result takes an odd last bit), so its error is up to a unit in the last place instead of half of
/// one, and denormals are 0. Where the processor and the system enable FEAT_EBF16, the two products are added exactly and the
/// results are rounded to nearest. AVX512-BF16 has neither: its instruction rounds each addition to nearest.
#[derive(Clone, Copy)]
pub(crate) struct NeonBf16;

/// Nearest even, by the instruction. The intrinsics of bf16 are not stable.
#[inline]
#[target_feature(enable = "neon,bf16")]
unsafe fn convert_bf16(v: Eight) -> uint16x8_t {
    let out: uint16x8_t;
    // SAFETY: the caller has the feature; the instructions work on registers.
    unsafe {
        asm!(
            "bfcvtn {0:v}.4h, {1:v}.4s",
            "bfcvtn2 {0:v}.8h, {2:v}.4s",
            out(vreg) out,
            in(vreg) v[0],
            in(vreg) v[1],
            options(pure, nomem, nostack)
        );
    }
    out
}

/// sums\[r\]\[c\] + a\[r\]·b\[c\] for 2 × 2 sums, two rows of four bf16 and two columns of four.
#[inline]
#[target_feature(enable = "neon,bf16")]
unsafe fn bfmmla(sums: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
    let mut sums = sums;
    // SAFETY: the caller has the feature; the instruction works on registers.
    unsafe {
        asm!(
            "bfmmla {0:v}.4s, {1:v}.8h, {2:v}.8h",
            inout(vreg) sums,
            in(vreg) a,
            in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

neon!(NeonBf16, convert_bf16 {
    const PAIR_GROUP: usize = 2;
    // Sums of two rows and two columns are one register: those of columns 4j and 4j + 1 of rows 2p and 2p + 1 stand in the place
    // of row 2p's register j, those of columns 4j + 2 and 4j + 3 in that of row 2p + 1. Of an odd last row, these go to `spare`.
    #[inline(always)]
    unsafe fn add_groups<const ROWS: usize, const NV: usize>(
        sums: &mut [[Eight; NV]; ROWS],
        spare: &mut [Eight; NV],
        a: *const u32,
        row_step: usize,
        b: *const u32,
    ) {
        // SAFETY: the groups of each row and column are readable.
        unsafe {
            let group = |i: usize| vld1_u32(a.add(i * row_step));
            let rows: [uint32x4_t; ROWS] = std::array::from_fn(|i| match i % 2 {
                1 => vdupq_n_u32(0),
                _ if i + 1 == ROWS => vcombine_u32(group(i), vdup_n_u32(0)),
                _ if row_step == 2 => vld1q_u32(a.add(2 * i)),
                _ => vcombine_u32(group(i), group(i + 1)),
            });
            for j in 0..NV {
                for half in 0..2 {
                    let at = b.add((j * 2 + half) * 8);
                    let (left, right) = (vld1q_u32(at), vld1q_u32(at.add(4)));
                    for i in (0..ROWS).step_by(2) {
                        let sum = &mut sums[i][j][half];
                        *sum = bfmmla(*sum, rows[i], left);
                        let sum = if i + 1 < ROWS { &mut sums[i + 1][j][half] } else { &mut spare[j][half] };
                        *sum = bfmmla(*sum, rows[i], right);
                    }
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn order_sums<const ROWS: usize, const NV: usize>(
        sums: &mut [[Eight; NV]; ROWS],
        spare: &[Eight; NV],
    ) {
        for i in (0..ROWS).step_by(2) {
            for j in 0..NV {
                for half in 0..2 {
                    // SAFETY: NEON is part of aarch64.
                    unsafe {
                        let pair = |x| vreinterpretq_f64_f32(x);
                        let left = pair(sums[i][j][half]);
                        let right = pair(if i + 1 < ROWS { sums[i + 1][j][half] } else { spare[j][half] });
                        sums[i][j][half] = vreinterpretq_f32_f64(vzip1q_f64(left, right));
                        if i + 1 < ROWS {
                            sums[i + 1][j][half] = vreinterpretq_f32_f64(vzip2q_f64(left, right));
                        }
                    }
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn pair_columns(b: *const u32, w: usize) -> [Eight; 2] {
        // SAFETY: the groups of sixteen columns are readable.
        unsafe {
            let part = |at: usize| {
                let (low, high) = (vld1q_u32(b.add(at)), vld1q_u32(b.add(at + 4)));
                vreinterpretq_f32_u32(if w == 0 { vuzp1q_u32(low, high) } else { vuzp2q_u32(low, high) })
            };
            [[part(0), part(8)], [part(16), part(24)]]
        }
    }
});
