//! Activations of one vector: what the kernels here and the linear layers' epilogues apply.

use super::function::Activation;
use crate::{
    DType,
    simd::{Lane, Simd, math::power},
};
use std::f32::consts::LOG2_E;

impl Activation {
    /// The activation of each lane, for a result that is stored as T. NaN stays NaN; where torch gives a finite value so
    /// does this. Powers of 2 are good to 1.5e-7, for bf16, which rounds to 2^−8, to 2.7e-6.
    ///
    /// # Safety
    /// As [`Simd`]'s.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd, T: Lane>(self, x: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            match T::DTYPE {
                DType::BF16 => self.with_degree::<S, 4>(x),
                _ => self.with_degree::<S, 5>(x),
            }
        }
    }

    /// # Safety
    /// As [`Simd`]'s.
    #[inline(always)]
    unsafe fn with_degree<S: Simd, const DEGREE: usize>(self, x: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::GeluTanh => gelu_tanh::<S, DEGREE>(x),
                Self::GeluErf => gelu_erf::<S, DEGREE>(x),
                Self::QuickGelu => sigmoid_times::<S, DEGREE>(x, S::splat(-1.702 * LOG2_E)),
                Self::Silu => sigmoid_times::<S, DEGREE>(x, S::splat(-LOG2_E)),
                // The operand that may be NaN comes second, and is what `max` then gives.
                Self::Relu => S::max(S::zero(), x),
            }
        }
    }
}

/// x·σ(−k·ln 2·x) as x / (1 + 2^(k·x)), for a k ≤ −1 that may depend on x.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
unsafe fn sigmoid_times<S: Simd, const DEGREE: usize>(x: S::V, k: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        // At most 2^125: the quotient below is nothing for any x, and `recip` takes it. A NaN ends here as a number...
        let power = power::<S, DEGREE>(S::min(S::mul(x, k), S::splat(125.0)));
        // ...and is kept here, as `max` gives its second operand if one is NaN.
        let bounded = S::max(S::splat(-256.0), x);
        S::mul(bounded, S::recip(S::add(power, S::splat(1.0))))
    }
}

/// ½x(1 + tanh u) with u = √(2/π)(x + 0.044715x³) (Hendrycks and Gimpel, arXiv:1606.08415, section 2), written as
/// x·σ(2u) = x / (1 + 2^(−2u·log₂e)): one power and no cancellation for negative x.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
unsafe fn gelu_tanh<S: Simd, const DEGREE: usize>(x: S::V) -> S::V {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    const LINEAR: f32 = -2.0 * SQRT_2_OVER_PI * LOG2_E;
    // SAFETY: the caller's promise.
    unsafe {
        let k = S::fma(S::mul(x, x), S::splat(LINEAR * 0.044_715), S::splat(LINEAR));
        sigmoid_times::<S, DEGREE>(x, k)
    }
}

/// The slope in t = 1/(1 + 0.35z), and the coefficients of Q(z)·e^(z²/2) = t·P(t), constant first.
///
/// Q is the upper tail ½·erfc(z/√2) of the normal distribution. The form is that of Hastings (Abramowitz and Stegun
/// 7.1.26) with more terms: minimax in relative error on 0 ≤ z ≤ 14, fitted in f64 by Lawson's iteration (3.2e-8; with
/// f32 arithmetic 2.9e-7 relative, and |z|·error ≤ 4.8e-8, so that GELU is good to one rounding).
const TAIL_SLOPE: f32 = 0.35;
const TAIL: [f32; 9] = [
    0.139_621_4,
    0.139_861_87,
    0.119_832_88,
    0.105_507_955,
    -0.023_109_697,
    0.159_173_94,
    -0.255_714_03,
    0.143_971_58,
    -0.029_145_902,
];

/// x·Φ(x) with the normal distribution Φ, as max(x, 0) − |x|·Q(|x|): no cancellation for negative x.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
unsafe fn gelu_erf<S: Simd, const DEGREE: usize>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        // At 16 the tail is below the smallest f32; the bound keeps ∞ out of the products.
        let z = S::min(S::abs(x), S::splat(16.0));
        let t = S::recip(S::fma(z, S::splat(TAIL_SLOPE), S::splat(1.0)));
        let mut p = S::splat(TAIL[8]);
        for &k in TAIL[..8].iter().rev() {
            p = S::fma(p, t, S::splat(k));
        }
        let e = power::<S, DEGREE>(S::mul(S::mul(z, z), S::splat(-0.5 * LOG2_E)));
        S::fnma(S::mul(S::mul(z, t), p), e, S::max(S::zero(), x))
    }
}

/// `with_activation!(act, ACT => expression)` evaluates the expression with the constant `ACT` equal to `act`: a loop in it
/// is compiled once an activation, with no branch inside.
macro_rules! with_activation {
    ($act:expr, $constant:ident => $body:expr) => {
        $crate::activation::math::with_activation!(
            $act, $constant => $body; GeluTanh GeluErf QuickGelu Silu Relu
        )
    };
    ($act:expr, $constant:ident => $body:expr; $($variant:ident)*) => {
        match $act {
            $($crate::activation::function::Activation::$variant => {
                const $constant: $crate::activation::function::Activation = $crate::activation::function::Activation::$variant;
                $body
            })*
        }
    };
}
pub(crate) use with_activation;
