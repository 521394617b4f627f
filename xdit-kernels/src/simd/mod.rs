//! One generic kernel body, compiled once a tier.
//!
//! A kernel writes `#[inline(always)] unsafe fn body<S: Simd>(…)` over vectors `S::V` of `S::LANES` f32, and [`tiered!`]
//! makes the function that runs it with the instructions of a [`Tier`](crate::Tier). Everything computes in f32;
//! [`Lane`] loads and stores 16-bit elements with conversion.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
pub(crate) mod microkernel;
#[cfg(test)]
mod microkernel_tests;
mod portable;
#[cfg(test)]
mod tests;
pub(crate) mod transpose;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
pub(crate) use portable::Portable;

use crate::Float;
use half::{bf16, f16};

/// Vectors of f32 and the instructions on them.
///
/// # Safety
/// Every method needs the processor features of its tier; pointers must be valid for the lanes read or written, at any
/// alignment. `n` is at most `LANES`; lanes from `n` on read as 0 and are not written.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of `LANES` f32.
    type V: Copy;
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self::V;
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        // SAFETY: as the trait's.
        unsafe { Self::splat(0.0) }
    }
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn store_n(p: *mut f32, n: usize, v: Self::V);
    unsafe fn load_bf16(p: *const bf16) -> Self::V;
    unsafe fn load_bf16_n(p: *const bf16, n: usize) -> Self::V;
    unsafe fn store_bf16(p: *mut bf16, v: Self::V);
    unsafe fn store_bf16_n(p: *mut bf16, n: usize, v: Self::V);
    unsafe fn load_f16(p: *const f16) -> Self::V;
    unsafe fn load_f16_n(p: *const f16, n: usize) -> Self::V;
    unsafe fn store_f16(p: *mut f16, v: Self::V);
    unsafe fn store_f16_n(p: *mut f16, n: usize, v: Self::V);
    /// As `store`, past the caches: for results larger than these, so that their lines need not be read first. The place is
    /// aligned to the vector's size there; [`fence`](Self::fence) before other threads read.
    #[inline(always)]
    unsafe fn stream(p: *mut f32, v: Self::V) {
        // SAFETY: as the trait's.
        unsafe { Self::store(p, v) }
    }
    #[inline(always)]
    unsafe fn stream_bf16(p: *mut bf16, v: Self::V) {
        // SAFETY: as the trait's.
        unsafe { Self::store_bf16(p, v) }
    }
    #[inline(always)]
    unsafe fn stream_f16(p: *mut f16, v: Self::V) {
        // SAFETY: as the trait's.
        unsafe { Self::store_f16(p, v) }
    }
    /// What was streamed by this thread is seen by others before what it stores later.
    #[inline(always)]
    unsafe fn fence() {}

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a/b, rounded to nearest.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// 1/a to one unit in the last place, for 1 ≤ |a| ≤ 2^126; where an estimate of enough bits exists, quicker than a
    /// division.
    unsafe fn recip(a: Self::V) -> Self::V;
    /// a·b + c, in one rounding where the tier has it.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a·b, in one rounding where the tier has it.
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// NaN in `a` gives `b`, as x86's instruction does.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn abs(a: Self::V) -> Self::V;
    /// Lane by lane `if a > b { x } else { y }`.
    unsafe fn select_gt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Nearest integer, ties to even, for |a| < 2^22.
    unsafe fn round(a: Self::V) -> Self::V;
    /// a · 2^n for integral n in −126..=127 (n as f32), or for what [`floor_parts`](Self::floor_parts) gives.
    unsafe fn scale_pow2(a: Self::V, n: Self::V) -> Self::V;
    /// For x ≤ 127 that is not NaN: f in 0..=1 and n such that 2^x = 2^f · 2^n, n for [`scale_pow2`](Self::scale_pow2) only.
    /// Below −126 the power may be 2^−126 or what it is.
    #[inline(always)]
    unsafe fn floor_parts(x: Self::V) -> (Self::V, Self::V) {
        // SAFETY: as the trait's. The nearest integer of x − ½ is x's floor, or x − 1 for some integers x.
        unsafe {
            let x = Self::max(x, Self::splat(-126.0));
            let n = Self::round(Self::sub(x, Self::splat(0.5)));
            (Self::sub(x, n), n)
        }
    }
    /// Lanes 1,0,3,2,…: the partner of each lane in an interleaved pair.
    unsafe fn swap_pairs(a: Self::V) -> Self::V;
    /// Lanes with even index negated.
    unsafe fn negate_even(a: Self::V) -> Self::V;
    /// Sum of the lanes, in a fixed order.
    unsafe fn sum(a: Self::V) -> f32;
    unsafe fn max_lane(a: Self::V) -> f32;
}

/// An element type as a kernel sees it: f32 vectors after conversion.
///
/// # Safety
/// As [`Simd`]'s.
pub(crate) trait Lane: Float {
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    unsafe fn load_n<S: Simd>(p: *const Self, n: usize) -> S::V;
    unsafe fn store<S: Simd>(p: *mut Self, v: S::V);
    unsafe fn store_n<S: Simd>(p: *mut Self, n: usize, v: S::V);
    unsafe fn stream<S: Simd>(p: *mut Self, v: S::V);
}

macro_rules! lane {
    ($t:ty, $load:ident, $load_n:ident, $store:ident, $store_n:ident, $stream:ident) => {
        impl Lane for $t {
            #[inline(always)]
            unsafe fn load<S: Simd>(p: *const Self) -> S::V {
                // SAFETY: the trait's contract is this function's.
                unsafe { S::$load(p) }
            }
            #[inline(always)]
            unsafe fn load_n<S: Simd>(p: *const Self, n: usize) -> S::V {
                // SAFETY: as above.
                unsafe { S::$load_n(p, n) }
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(p: *mut Self, v: S::V) {
                // SAFETY: as above.
                unsafe { S::$store(p, v) }
            }
            #[inline(always)]
            unsafe fn store_n<S: Simd>(p: *mut Self, n: usize, v: S::V) {
                // SAFETY: as above.
                unsafe { S::$store_n(p, n, v) }
            }
            #[inline(always)]
            unsafe fn stream<S: Simd>(p: *mut Self, v: S::V) {
                // SAFETY: as above.
                unsafe { S::$stream(p, v) }
            }
        }
    };
}
lane!(f32, load, load_n, store, store_n, stream);
lane!(
    bf16,
    load_bf16,
    load_bf16_n,
    store_bf16,
    store_bf16_n,
    stream_bf16
);
lane!(
    f16,
    load_f16,
    load_f16_n,
    store_f16,
    store_f16_n,
    stream_f16
);

/// `tiered!(pub(super) fn NAME[T: Lane][T](a: A, …) -> R = BODY)` defines `unsafe fn NAME<T: Lane>(tier: Tier, a: A, …) -> R`
/// that calls `BODY::<S, T>(a, …)` compiled with the features of `tier`, `S` being that tier's [`Simd`].
/// Leave the brackets out when the body has no parameter but `S`.
///
/// Its caller promises what the body asks for; that the processor has the tier is `Tier`'s own promise only if the
/// tier came from detection, so the generated function asserts it.
macro_rules! tiered {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $crate::simd::tiered!($(#[$meta])* $vis fn $name[][]($($arg: $ty),*) $(-> $ret)? = $body);
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$($gen:tt)*][$($use:tt)*]($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a kernel takes pointers and sizes")]
        $vis unsafe fn $name<$($gen)*>(tier: $crate::Tier, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2<$($gen)*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise, passed on; the features are enabled here.
                unsafe { $body::<$crate::simd::Avx2, $($use)*>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
            unsafe fn avx512<$($gen)*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { $body::<$crate::simd::Avx512, $($use)*>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
            unsafe fn avx512bf16<$($gen)*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { $body::<$crate::simd::Avx512Bf16, $($use)*>($($arg),*) }
            }
            assert!(tier.is_available(), "this processor has no {tier}");
            // SAFETY: the tier's features are there, as just asserted; the rest is the caller's promise.
            unsafe {
                match tier {
                    #[cfg(target_arch = "x86_64")]
                    $crate::Tier::Avx512Bf16 => avx512bf16::<$($use)*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Tier::Avx512 => avx512::<$($use)*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Tier::Avx2 => avx2::<$($use)*>($($arg),*),
                    _ => $body::<$crate::simd::Portable, $($use)*>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use tiered;

/// A raw pointer that tasks of one parallel loop share.
///
/// The loop's `// SAFETY:` comment says why the tasks' accesses do not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: a pointer is a number; what is done with it is unsafe at the place of use.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    /// The pointer; a method, so that closures capture the whole wrapper.
    #[inline(always)]
    pub(crate) fn ptr(&self) -> *mut T {
        self.0
    }
}
