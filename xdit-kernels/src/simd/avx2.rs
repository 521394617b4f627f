//! AVX2 with FMA and F16C: eight lanes; tails go through a small array.

use super::lane::Simd;
use half::{bf16, f16};
use std::arch::x86_64::*;

/// AVX2, FMA, F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

const LANES: usize = 8;

/// Nearest even by integer arithmetic; NaN stays NaN. Lanes in order, as eight u16.
#[inline(always)]
unsafe fn round_bf16(v: __m256) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let kept = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        // packus works within 128-bit halves: take the low quarter of each.
        let packed = _mm256_packus_epi32(kept, kept);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}

/// Nearest even.
#[inline(always)]
unsafe fn round_f16(v: __m256) -> __m128i {
    // SAFETY: the caller has F16C.
    unsafe { _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v) }
}

#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each is a few instructions under the trait's contract"
)]
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = LANES;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> __m256 {
        unsafe {
            let mut t = [0f32; LANES];
            // As bytes: `p` may have any alignment.
            std::ptr::copy_nonoverlapping(p.cast::<u8>(), t.as_mut_ptr().cast(), 4 * n);
            _mm256_loadu_ps(t.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, n: usize, v: __m256) {
        unsafe {
            let mut t = [0f32; LANES];
            _mm256_storeu_ps(t.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(t.as_ptr().cast::<u8>(), p.cast(), 4 * n)
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> __m256 {
        unsafe {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(
                _mm_loadu_si128(p.cast()),
            )))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_n(p: *const bf16, n: usize) -> __m256 {
        unsafe {
            let mut t = [bf16::ZERO; LANES];
            std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n);
            Self::load_bf16(t.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut bf16, v: __m256) {
        unsafe { _mm_storeu_si128(p.cast(), round_bf16(v)) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(p: *mut bf16, n: usize, v: __m256) {
        unsafe {
            let mut t = [bf16::ZERO; LANES];
            Self::store_bf16(t.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(t.as_ptr(), p, n)
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_f16_n(p: *const f16, n: usize) -> __m256 {
        unsafe {
            let mut t = [f16::ZERO; LANES];
            std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n);
            Self::load_f16(t.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut f16, v: __m256) {
        unsafe { _mm_storeu_si128(p.cast(), round_f16(v)) }
    }
    #[inline(always)]
    unsafe fn store_f16_n(p: *mut f16, n: usize, v: __m256) {
        unsafe {
            let mut t = [f16::ZERO; LANES];
            Self::store_f16(t.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(t.as_ptr(), p, n)
        }
    }
    #[inline(always)]
    unsafe fn stream(p: *mut f32, v: __m256) {
        unsafe { _mm256_stream_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn stream_bf16(p: *mut bf16, v: __m256) {
        unsafe { _mm_stream_si128(p.cast(), round_bf16(v)) }
    }
    #[inline(always)]
    unsafe fn stream_f16(p: *mut f16, v: __m256) {
        unsafe { _mm_stream_si128(p.cast(), round_f16(v)) }
    }
    #[inline(always)]
    unsafe fn fence() {
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn recip(a: __m256) -> __m256 {
        // The estimate has 12 bits: one step would leave the last bit wrong, two cost as much as the division.
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    unsafe fn select_gt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale_pow2(a: __m256, n: __m256) -> __m256 {
        unsafe {
            let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(
                _mm256_cvtps_epi32(n),
                _mm256_set1_epi32(127),
            ));
            _mm256_mul_ps(a, _mm256_castsi256_ps(bits))
        }
    }
    #[inline(always)]
    unsafe fn swap_pairs(a: __m256) -> __m256 {
        unsafe { _mm256_permute_ps::<0xB1>(a) }
    }
    #[inline(always)]
    unsafe fn negate_even(a: __m256) -> __m256 {
        unsafe { _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi64x(0x8000_0000))) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        unsafe {
            let s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
        }
    }
    #[inline(always)]
    unsafe fn max_lane(a: __m256) -> f32 {
        unsafe {
            let s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps::<1>(s, s)))
        }
    }
}
