//! Squares of vectors, rows and columns exchanged in registers.

use super::lanes::MAX_LANES;
use std::arch::x86_64::*;

/// The first eight vectors as a square, rows and columns exchanged.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn transpose_8(square: &mut [__m256; MAX_LANES]) {
    // SAFETY: the caller has AVX2.
    unsafe {
        let mut t = *square;
        for i in 0..4 {
            // Columns 4c + 2p, 4c + 2p + 1 of a pair of rows next to each other, in each half c.
            t[2 * i] = _mm256_unpacklo_ps(square[2 * i], square[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(square[2 * i], square[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..2 {
            // Of four rows, one column in each half.
            let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
            u[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            u[4 * i + 1] = _mm256_shuffle_ps::<0xEE>(a, c);
            u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            u[4 * i + 3] = _mm256_shuffle_ps::<0xEE>(b, d);
        }
        for i in 0..4 {
            square[i] = _mm256_permute2f128_ps::<0x20>(u[i], u[4 + i]);
            square[4 + i] = _mm256_permute2f128_ps::<0x31>(u[i], u[4 + i]);
        }
    }
}

/// Rows and columns exchanged.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
pub(super) unsafe fn transpose_16(square: &mut [__m512; MAX_LANES]) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut t = *square;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(square[2 * i], square[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(square[2 * i], square[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..4 {
            // Of rows 4i..4i + 4, column k of each quarter in vector 4i + k.
            let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
            u[4 * i] = _mm512_shuffle_ps::<0x44>(a, c);
            u[4 * i + 1] = _mm512_shuffle_ps::<0xEE>(a, c);
            u[4 * i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
            u[4 * i + 3] = _mm512_shuffle_ps::<0xEE>(b, d);
        }
        for k in 0..4 {
            // Quarters q and q + 1 of all sixteen rows' column k, then one quarter a vector.
            let even0 = _mm512_shuffle_f32x4::<0x88>(u[k], u[4 + k]);
            let odd0 = _mm512_shuffle_f32x4::<0xDD>(u[k], u[4 + k]);
            let even1 = _mm512_shuffle_f32x4::<0x88>(u[8 + k], u[12 + k]);
            let odd1 = _mm512_shuffle_f32x4::<0xDD>(u[8 + k], u[12 + k]);
            square[k] = _mm512_shuffle_f32x4::<0x88>(even0, even1);
            square[8 + k] = _mm512_shuffle_f32x4::<0xDD>(even0, even1);
            square[4 + k] = _mm512_shuffle_f32x4::<0x88>(odd0, odd1);
            square[12 + k] = _mm512_shuffle_f32x4::<0xDD>(odd0, odd1);
        }
    }
}
