//! What attention needs of a tier beyond [`Simd`]: the size of its matrix tile, products of bf16 pairs, and 2^x for x ≤ 0.

#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512, Avx512Bf16};
#[cfg(target_arch = "aarch64")]
use crate::simd::{Neon, NeonBf16};
use crate::simd::{Portable, Simd, transpose::Transpose};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "aarch64")]
use {crate::simd::microkernel::Micro, std::arch::aarch64::*};

/// A tier as attention sees it.
///
/// # Safety
/// As [`Simd`]'s.
pub(super) trait Lanes: Simd + Transpose {
    /// Rows of a tile; with `NV` it decides how many accumulators live in registers.
    const MR: usize;
    /// Vectors of a tile's row.
    const NV: usize;
    /// Columns of a tile.
    const NR: usize = Self::NV * Self::LANES;

    /// acc + a·b over both halves of each lane, which holds two bf16.
    unsafe fn mac_pairs(acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// (n, f) with x = n + f, n integral and f in 0..=1, as [`Simd::scale_pow2`] wants n: where x < −126 it is
    /// −127, which makes a factor of 0. NaN goes to f.
    #[inline(always)]
    unsafe fn split_exponent(x: Self::V) -> (Self::V, Self::V) {
        // SAFETY: the caller's promise.
        unsafe {
            let x = Self::max(Self::splat(-126.5), x);
            // Below or at x; one too low at an integer, where f is 1.
            let n = Self::round(Self::sub(x, Self::splat(0.5)));
            (n, Self::sub(x, n))
        }
    }
}

/// Two f32 from the bf16 in the low and the high half of a word.
#[inline(always)]
fn halves(word: f32) -> (f32, f32) {
    let bits = word.to_bits();
    (
        f32::from_bits(bits << 16),
        f32::from_bits(bits & 0xffff_0000),
    )
}

impl Lanes for Portable {
    const MR: usize = 6;
    // aarch64 has 32 vector registers, SSE2 has 16; a `Portable` vector fills two.
    const NV: usize = if cfg!(target_arch = "aarch64") { 2 } else { 1 };
    #[inline(always)]
    unsafe fn mac_pairs(acc: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let mut out = acc;
        for (o, (&x, &y)) in out.iter_mut().zip(a.iter().zip(&b)) {
            let ((x0, x1), (y0, y1)) = (halves(x), halves(y));
            *o += x0 * y0 + x1 * y1;
        }
        out
    }
}

#[cfg(target_arch = "aarch64")]
macro_rules! neon {
    ($tier:ty) => {
        impl Lanes for $tier {
            const MR: usize = 6;
            const NV: usize = 2;
            #[inline(always)]
            unsafe fn mac_pairs(acc: Self::V, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: NEON is part of aarch64.
                unsafe {
                    let acc = Self::fma(Self::low(a), Self::low(b), acc);
                    Self::fma(Self::high(a), Self::high(b), acc)
                }
            }
            #[inline(always)]
            unsafe fn split_exponent(x: Self::V) -> (Self::V, Self::V) {
                // SAFETY: NEON is part of aarch64. FMAX and FRINTM keep NaN.
                unsafe {
                    let part = |x| {
                        let x = vmaxq_f32(x, vdupq_n_f32(-126.5));
                        let n = vrndmq_f32(x);
                        (n, vsubq_f32(x, n))
                    };
                    let [(n0, f0), (n1, f1)] = x.map(part);
                    ([n0, n1], [f0, f1])
                }
            }
        }
    };
}
#[cfg(target_arch = "aarch64")]
neon!(Neon);
#[cfg(target_arch = "aarch64")]
neon!(NeonBf16);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    const MR: usize = 6;
    const NV: usize = 2;
    #[inline(always)]
    unsafe fn mac_pairs(acc: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            let (a0, b0) = (
                _mm256_slli_epi32::<16>(_mm256_castps_si256(a)),
                _mm256_slli_epi32::<16>(_mm256_castps_si256(b)),
            );
            let acc = _mm256_fmadd_ps(_mm256_castsi256_ps(a0), _mm256_castsi256_ps(b0), acc);
            let high = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
            _mm256_fmadd_ps(_mm256_and_ps(a, high), _mm256_and_ps(b, high), acc)
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    const MR: usize = 14;
    const NV: usize = 2;
    #[inline(always)]
    unsafe fn mac_pairs(acc: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX-512 F and DQ.
        unsafe {
            let (a0, b0) = (
                _mm512_slli_epi32::<16>(_mm512_castps_si512(a)),
                _mm512_slli_epi32::<16>(_mm512_castps_si512(b)),
            );
            let acc = _mm512_fmadd_ps(_mm512_castsi512_ps(a0), _mm512_castsi512_ps(b0), acc);
            let high = _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000_u32 as i32));
            _mm512_fmadd_ps(_mm512_and_ps(a, high), _mm512_and_ps(b, high), acc)
        }
    }
    #[inline(always)]
    unsafe fn split_exponent(x: __m512) -> (__m512, __m512) {
        // VSCALEFPS rounds its exponent down itself, and gives 0 for one too small, −∞ included.
        // SAFETY: the caller has AVX-512 DQ.
        unsafe {
            (
                x,
                _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(x),
            )
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512Bf16 {
    const MR: usize = 14;
    const NV: usize = 2;
    #[inline(always)]
    unsafe fn mac_pairs(acc: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX512-BF16; the types are all 512 bits.
        unsafe {
            let pairs = |x| std::mem::transmute::<__m512, __m512bh>(x);
            _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
        }
    }
    #[inline(always)]
    unsafe fn split_exponent(x: __m512) -> (__m512, __m512) {
        // VSCALEFPS rounds its exponent down itself, and gives 0 for one too small, −∞ included.
        // SAFETY: the caller has AVX-512 DQ.
        unsafe {
            (
                x,
                _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(x),
            )
        }
    }
}

/// What a 32-bit word of a packed operand holds.
///
/// # Safety
/// As [`Simd`]'s.
pub(super) trait Product: Send + Sync + 'static {
    /// Elements of a word.
    const WORD: usize;
    /// Words that stand together.
    #[inline(always)]
    fn group<S: Lanes>() -> usize {
        1
    }
    /// Words of n elements.
    #[inline(always)]
    fn words<S: Lanes>(n: usize) -> usize {
        n.div_ceil(Self::WORD * Self::group::<S>()) * Self::group::<S>()
    }
    /// acc + the product of two words, lane by lane.
    unsafe fn mac<S: Lanes>(acc: S::V, a: S::V, b: S::V) -> S::V;
}

/// A word is an f32.
pub(super) struct SingleProduct;

/// A word is two bf16, the earlier one in the low half.
pub(super) struct PairProduct;

impl Product for SingleProduct {
    const WORD: usize = 1;
    #[inline(always)]
    unsafe fn mac<S: Lanes>(acc: S::V, a: S::V, b: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::fma(a, b, acc) }
    }
}

impl Product for PairProduct {
    const WORD: usize = 2;
    #[inline(always)]
    fn group<S: Lanes>() -> usize {
        S::PAIR_GROUP
    }
    #[inline(always)]
    unsafe fn mac<S: Lanes>(acc: S::V, a: S::V, b: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::mac_pairs(acc, a, b) }
    }
}

/// Coefficients of 2^f on 0..=1, constant first, minimax in relative error (Lawson iteration in f64, constant held at 1 so
/// that the row's maximum weighs 1): degree 3 is good to 8.6e-5 (for weights that are next rounded to 8 or 11 bits),
/// degree 5 to 1.5e-7 and degree 6 to 6.5e-8 in f32 arithmetic.
const EXP2_3: [f32; 4] = [1.0, 0.695_116_8, 0.227_644_95, 0.077_067_07];
const EXP2_5: [f32; 6] = [
    1.0,
    0.693_151_3,
    0.240_164_44,
    0.055_799_913,
    0.009_017_029,
    0.001_867_130_5,
];
const EXP2_6: [f32; 7] = [
    1.0,
    0.693_147_06,
    0.240_229_31,
    0.055_485_282,
    0.009_675_452,
    0.001_246_784_5,
    0.000_216_129_19,
];

/// 2^x of each of N vectors, for x ≤ 0, by a polynomial of `DEGREE` 3, 5 or 6; −∞ gives 0 and NaN stays.
///
/// The instructions of the vectors alternate. The chain of one vector is longer than the processor looks ahead for others.
///
/// # Safety
/// As [`Simd`]'s.
#[allow(
    clippy::needless_range_loop,
    reason = "iterators are inlined only with some settings of the compiler"
)]
#[inline(always)]
pub(super) unsafe fn exp2<S: Lanes, const DEGREE: usize, const N: usize>(
    x: [S::V; N],
) -> [S::V; N] {
    let c: &[f32] = match DEGREE {
        3 => &EXP2_3,
        5 => &EXP2_5,
        _ => &EXP2_6,
    };
    // SAFETY: the caller's promise.
    unsafe {
        let (mut n, mut f) = (x, x);
        for j in 0..N {
            (n[j], f[j]) = S::split_exponent(x[j]);
        }
        let mut p = [S::splat(c[DEGREE]); N];
        let mut i = DEGREE;
        while i > 0 {
            i -= 1;
            for j in 0..N {
                p[j] = S::fma(p[j], f[j], S::splat(c[i]));
            }
        }
        for j in 0..N {
            p[j] = S::scale_pow2(p[j], n[j]);
        }
        p
    }
}
