//! Transcendental functions on vectors.

use super::Simd;

/// Coefficients of 2^f on [−½, ½], constant first, minimax in relative error (Lawson iteration in f64): degree 6 is good
/// to 7.9e-8 in f32 arithmetic.
const EXP2_6: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_46,
    0.055_503_286,
    0.009_618_489,
    0.001_339_993_1,
    0.000_153_458_12,
];

/// Coefficients of 2^f on [0, 1], likewise: degree 4 is good to 2.7e-6, degree 5 to 1.5e-7 in f32 arithmetic.
const POWER_4: [f32; 5] = [
    1.000_002_6,
    0.693_003_83,
    0.241_442_75,
    0.052_011_46,
    0.013_534_168,
];
const POWER_5: [f32; 6] = [
    0.999_999_94,
    0.693_153_1,
    0.240_153_61,
    0.055_826_318,
    0.008_989_34,
    0.001_877_576_7,
];

/// 2^x by a polynomial of `DEGREE` 4 or 5, for x ≤ 127 that is not NaN. For x < −126 the result lies between 0 and 2^−126.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
pub(crate) unsafe fn power<S: Simd, const DEGREE: usize>(x: S::V) -> S::V {
    let c: &[f32] = match DEGREE {
        4 => &POWER_4,
        _ => &POWER_5,
    };
    // SAFETY: the caller's promise.
    unsafe {
        let (f, n) = S::floor_parts(x);
        let mut p = S::splat(c[c.len() - 1]);
        for &k in c[..c.len() - 1].iter().rev() {
            p = S::fma(p, f, S::splat(k));
        }
        S::scale_pow2(p, n)
    }
}

/// e^x to about 1e-7 relative for −87 < x < 88, clamped outside.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let x = S::min(S::max(x, S::splat(-87.3)), S::splat(88.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // x − n·ln 2 in two parts (Cody and Waite), so that the reduced argument keeps its bits.
        let f = S::fnma(n, S::splat(0.693_359_4), x);
        let f = S::fnma(n, S::splat(-2.121_944_4e-4), f);
        let f = S::mul(f, S::splat(std::f32::consts::LOG2_E));
        let mut p = S::splat(EXP2_6[6]);
        for &k in EXP2_6[..6].iter().rev() {
            p = S::fma(p, f, S::splat(k));
        }
        S::scale_pow2(p, n)
    }
}
