//! Transposes squares of lanes in registers: so rows become panels.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
#[cfg(target_arch = "aarch64")]
use super::{Neon, NeonBf16};
use super::{Portable, Simd};
use half::bf16;
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// The most lanes of any tier.
pub(crate) const MAX_LANES: usize = 16;

/// Transposition of as many vectors as they have lanes.
///
/// # Safety
/// As [`Simd`]'s.
pub(crate) trait Transpose: Simd {
    /// Swaps lane j of vector i with lane i of vector j, for all i and j below `LANES`.
    unsafe fn transpose(v: &mut [Self::V; MAX_LANES]);
}

impl Transpose for Portable {
    #[inline(always)]
    unsafe fn transpose(v: &mut [Self::V; MAX_LANES]) {
        let from = *v;
        for (i, to) in v.iter_mut().enumerate().take(Self::LANES) {
            *to = std::array::from_fn(|j| from[j][i]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Transpose for Avx2 {
    #[inline(always)]
    unsafe fn transpose(v: &mut [Self::V; MAX_LANES]) {
        // SAFETY: the caller has AVX2.
        unsafe {
            let mut t = [_mm256_setzero_ps(); 8];
            // Pairs of lanes of pairs of vectors, then fours of fours, then the two halves.
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
            }
            for i in [0, 4] {
                v[i] = _mm256_shuffle_ps::<0x44>(t[i], t[i + 2]);
                v[i + 1] = _mm256_shuffle_ps::<0xee>(t[i], t[i + 2]);
                v[i + 2] = _mm256_shuffle_ps::<0x44>(t[i + 1], t[i + 3]);
                v[i + 3] = _mm256_shuffle_ps::<0xee>(t[i + 1], t[i + 3]);
            }
            for i in 0..4 {
                let (low, high) = (v[i], v[i + 4]);
                v[i] = _mm256_permute2f128_ps::<0x20>(low, high);
                v[i + 4] = _mm256_permute2f128_ps::<0x31>(low, high);
            }
        }
    }
}

/// # Safety
/// The processor has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_16(v: &mut [__m512; MAX_LANES]) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        }
        for i in [0, 4, 8, 12] {
            v[i] = _mm512_shuffle_ps::<0x44>(t[i], t[i + 2]);
            v[i + 1] = _mm512_shuffle_ps::<0xee>(t[i], t[i + 2]);
            v[i + 2] = _mm512_shuffle_ps::<0x44>(t[i + 1], t[i + 3]);
            v[i + 3] = _mm512_shuffle_ps::<0xee>(t[i + 1], t[i + 3]);
        }
        // Quarters: even and odd ones of vectors 4 apart, then of those 8 apart.
        for i in 0..4 {
            t[i] = _mm512_shuffle_f32x4::<0x88>(v[i], v[i + 4]);
            t[i + 4] = _mm512_shuffle_f32x4::<0xdd>(v[i], v[i + 4]);
            t[i + 8] = _mm512_shuffle_f32x4::<0x88>(v[i + 8], v[i + 12]);
            t[i + 12] = _mm512_shuffle_f32x4::<0xdd>(v[i + 8], v[i + 12]);
        }
        for i in 0..8 {
            v[i] = _mm512_shuffle_f32x4::<0x88>(t[i], t[i + 8]);
            v[i + 8] = _mm512_shuffle_f32x4::<0xdd>(t[i], t[i + 8]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Transpose for Avx512 {
    #[inline(always)]
    unsafe fn transpose(v: &mut [Self::V; MAX_LANES]) {
        // SAFETY: the caller's promise.
        unsafe { transpose_16(v) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Transpose for Avx512Bf16 {
    #[inline(always)]
    unsafe fn transpose(v: &mut [Self::V; MAX_LANES]) {
        // SAFETY: the caller's promise.
        unsafe { transpose_16(v) }
    }
}

#[cfg(target_arch = "aarch64")]
macro_rules! neon {
    ($tier:ty) => {
        impl Transpose for $tier {
            #[inline(always)]
            unsafe fn transpose(v: &mut [Self::V; MAX_LANES]) {
                // Four squares of four; the two off the diagonal change places.
                for i in [0, 4] {
                    for half in 0..2 {
                        // SAFETY: NEON is part of aarch64.
                        unsafe {
                            let r = [v[i][half], v[i + 1][half], v[i + 2][half], v[i + 3][half]]
                                .map(|r| vreinterpretq_f64_f32(r));
                            let s = |x, y| (vreinterpretq_f32_f64(x), vreinterpretq_f32_f64(y));
                            // Columns 0 and 1 of rows 0, 2 and 1, 3; then columns 2 and 3.
                            let (a, b) = s(vtrn1q_f64(r[0], r[2]), vtrn1q_f64(r[1], r[3]));
                            let (c, d) = s(vtrn2q_f64(r[0], r[2]), vtrn2q_f64(r[1], r[3]));
                            v[i][half] = vtrn1q_f32(a, b);
                            v[i + 1][half] = vtrn2q_f32(a, b);
                            v[i + 2][half] = vtrn1q_f32(c, d);
                            v[i + 3][half] = vtrn2q_f32(c, d);
                        }
                    }
                }
                for i in 0..4 {
                    let high = v[i][1];
                    v[i][1] = v[i + 4][0];
                    v[i + 4][0] = high;
                }
            }
        }
    };
}
#[cfg(target_arch = "aarch64")]
neon!(Neon);
#[cfg(target_arch = "aarch64")]
neon!(NeonBf16);

/// Exchanges rows and columns of groups of four bf16: group g of row i goes to `out`[g · step + i]. Zeros fill the last group
/// of a row, and the columns from the number of rows to `width`.
///
/// # Safety
/// Each row has `n` bf16; `out` has room for `width` groups at each g · `step`; there are at most `width` rows.
#[inline(always)]
pub(crate) unsafe fn exchange_fours<T>(
    rows: &[*const T],
    n: usize,
    out: *mut [bf16; 4],
    step: usize,
    width: usize,
) {
    for (i, row) in rows.iter().enumerate() {
        for g in 0..n.div_ceil(4) {
            let mut four = [bf16::ZERO; 4];
            // SAFETY: elements below n of each row are readable, and the group's place is inside `out`.
            unsafe {
                let from = row.cast::<bf16>().add(4 * g);
                if 4 * g + 4 <= n {
                    four = from.cast::<[bf16; 4]>().read();
                } else {
                    from.copy_to_nonoverlapping(four.as_mut_ptr(), n - 4 * g);
                }
                out.add(g * step + i).write(four);
            }
        }
    }
    for i in rows.len()..width {
        for g in 0..n.div_ceil(4) {
            // SAFETY: the group's place is inside `out`.
            unsafe { out.add(g * step + i).write([bf16::ZERO; 4]) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tier, simd::tiered};

    #[inline(always)]
    unsafe fn square<S: Transpose>(lanes: &mut usize, data: &mut [f32; 256]) {
        *lanes = S::LANES;
        // SAFETY: LANES² elements are in `data`.
        unsafe {
            let mut v = [S::zero(); MAX_LANES];
            for (i, v) in v.iter_mut().enumerate().take(S::LANES) {
                *v = S::load(data.as_ptr().add(i * S::LANES));
            }
            S::transpose(&mut v);
            for (i, v) in v.into_iter().enumerate().take(S::LANES) {
                S::store(data.as_mut_ptr().add(i * S::LANES), v);
            }
        }
    }
    tiered!(fn run(lanes: &mut usize, data: &mut [f32; 256]) = square);

    #[test]
    fn squares_are_transposed() {
        for tier in Tier::available() {
            let (mut n, mut data) = (0, std::array::from_fn(|i| i as f32));
            // SAFETY: the tier is available.
            unsafe { run(tier, &mut n, &mut data) };
            for (i, &x) in data.iter().enumerate().take(n * n) {
                assert_eq!(x, (i % n * n + i / n) as f32, "{tier} at {i}");
            }
        }
    }
}
