//! AVX-512: sixteen lanes, masks for the tails.

use super::lane::Simd;
use half::{bf16, f16};
use std::arch::x86_64::*;

/// AVX-512 F, BW, VL, DQ; bf16 is rounded by integer arithmetic.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// The same with AVX512-BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16;

#[inline(always)]
fn mask(n: usize) -> u16 {
    debug_assert!(n <= 16, "a mask has sixteen lanes");
    ((1u32 << n) - 1) as u16
}

/// Nearest even by integer arithmetic; NaN stays NaN.
#[inline(always)]
unsafe fn round_bf16(v: __m512) -> __m256i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(v, v);
        let up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
        let nan = _mm512_set1_epi32(0x7fc0_0000);
        let rounded = _mm512_mask_add_epi32(nan, number, up, odd);
        // The high half of each lane: bytes 2 and 3 of four.
        let high = _mm512_set_epi16(
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23, 21, 19, 17, 15, 13,
            11, 9, 7, 5, 3, 1,
        );
        _mm512_castsi512_si256(_mm512_permutexvar_epi16(high, rounded))
    }
}

/// The instruction flushes denormals to zero; otherwise as `round_bf16`.
#[inline(always)]
unsafe fn convert_bf16(v: __m512) -> __m256i {
    // SAFETY: the caller has AVX512-BF16; both types are 256 bits.
    unsafe { std::mem::transmute(_mm512_cvtneps_pbh(v)) }
}

/// Nearest even.
#[inline(always)]
unsafe fn round_f16(v: __m512) -> __m256i {
    // SAFETY: the caller has AVX-512.
    unsafe { _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
}

macro_rules! avx512 {
    ($tier:ident, $round:ident) => {
        #[allow(
            clippy::undocumented_unsafe_blocks,
            reason = "each is one instruction under the trait's contract"
        )]
        impl Simd for $tier {
            type V = __m512;
            const LANES: usize = 16;
            #[inline(always)]
            unsafe fn splat(x: f32) -> __m512 {
                unsafe { _mm512_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> __m512 {
                unsafe { _mm512_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn load_n(p: *const f32, n: usize) -> __m512 {
                unsafe { _mm512_maskz_loadu_ps(mask(n), p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: __m512) {
                unsafe { _mm512_storeu_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn store_n(p: *mut f32, n: usize, v: __m512) {
                unsafe { _mm512_mask_storeu_ps(p, mask(n), v) }
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const bf16) -> __m512 {
                unsafe {
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(
                        _mm256_loadu_si256(p.cast()),
                    )))
                }
            }
            #[inline(always)]
            unsafe fn load_bf16_n(p: *const bf16, n: usize) -> __m512 {
                unsafe {
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(
                        _mm256_maskz_loadu_epi16(mask(n), p.cast()),
                    )))
                }
            }
            #[inline(always)]
            unsafe fn store_bf16(p: *mut bf16, v: __m512) {
                unsafe { _mm256_storeu_si256(p.cast(), $round(v)) }
            }
            #[inline(always)]
            unsafe fn store_bf16_n(p: *mut bf16, n: usize, v: __m512) {
                unsafe { _mm256_mask_storeu_epi16(p.cast(), mask(n), $round(v)) }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const f16) -> __m512 {
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_f16_n(p: *const f16, n: usize) -> __m512 {
                unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p.cast())) }
            }
            #[inline(always)]
            unsafe fn store_f16(p: *mut f16, v: __m512) {
                unsafe { _mm256_storeu_si256(p.cast(), round_f16(v)) }
            }
            #[inline(always)]
            unsafe fn store_f16_n(p: *mut f16, n: usize, v: __m512) {
                unsafe { _mm256_mask_storeu_epi16(p.cast(), mask(n), round_f16(v)) }
            }
            #[inline(always)]
            unsafe fn stream(p: *mut f32, v: __m512) {
                unsafe { _mm512_stream_ps(p, v) }
            }
            #[inline(always)]
            unsafe fn stream_bf16(p: *mut bf16, v: __m512) {
                unsafe { _mm256_stream_si256(p.cast(), $round(v)) }
            }
            #[inline(always)]
            unsafe fn stream_f16(p: *mut f16, v: __m512) {
                unsafe { _mm256_stream_si256(p.cast(), round_f16(v)) }
            }
            #[inline(always)]
            unsafe fn fence() {
                unsafe { _mm_sfence() }
            }
            #[inline(always)]
            unsafe fn add(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_sub_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn div(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_div_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn recip(a: __m512) -> __m512 {
                unsafe {
                    let r = _mm512_rcp14_ps(a);
                    _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0)), r)
                }
            }
            #[inline(always)]
            unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
                unsafe { _mm512_fnmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn min(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_min_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn max(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_max_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn abs(a: __m512) -> __m512 {
                unsafe { _mm512_abs_ps(a) }
            }
            #[inline(always)]
            unsafe fn select_gt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
                unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), y, x) }
            }
            #[inline(always)]
            unsafe fn round(a: __m512) -> __m512 {
                unsafe {
                    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
                }
            }
            #[inline(always)]
            unsafe fn scale_pow2(a: __m512, n: __m512) -> __m512 {
                unsafe { _mm512_scalef_ps(a, n) }
            }
            #[inline(always)]
            unsafe fn floor_parts(x: __m512) -> (__m512, __m512) {
                // x less its floor, which the scaling takes itself.
                unsafe {
                    let f = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(x);
                    (f, x)
                }
            }
            #[inline(always)]
            unsafe fn swap_pairs(a: __m512) -> __m512 {
                unsafe { _mm512_permute_ps::<0xB1>(a) }
            }
            #[inline(always)]
            unsafe fn negate_even(a: __m512) -> __m512 {
                unsafe { _mm512_xor_ps(a, _mm512_castsi512_ps(_mm512_set1_epi64(0x8000_0000))) }
            }
            #[inline(always)]
            unsafe fn sum(a: __m512) -> f32 {
                unsafe { _mm512_reduce_add_ps(a) }
            }
            #[inline(always)]
            unsafe fn max_lane(a: __m512) -> f32 {
                unsafe { _mm512_reduce_max_ps(a) }
            }
        }
    };
}
avx512!(Avx512, round_bf16);
avx512!(Avx512Bf16, convert_bf16);
