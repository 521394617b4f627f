//! Compiles one generic kernel body once for each [`Tier`](crate::Tier).
//!
//! A kernel is written as `#[inline(always)] unsafe fn body<S: Simd>(…)` over vectors `S::V` of `S::LANES` f32. [`tiered!`]
//! defines the function that runs the body with the instructions of a tier. All arithmetic is in f32; [`Lane`] converts
//! 16-bit elements when it loads and stores them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lane;
pub(crate) mod math;
pub(crate) mod microkernel;
#[cfg(test)]
mod microkernel_tests;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_bf16;
mod portable;
#[cfg(test)]
mod tests;
pub(crate) mod transpose;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
pub(crate) use lane::{Lane, Simd};
pub(crate) use portable::Portable;
#[cfg(target_arch = "aarch64")]
pub(crate) use {neon::Neon, neon_bf16::NeonBf16};

/// `tiered!(pub(super) fn NAME[T: Lane][T](a: A, …) -> R = BODY)` defines `unsafe fn NAME<T: Lane>(tier: Tier, a: A, …) -> R`
/// that calls `BODY::<S, T>(a, …)` compiled with the features of `tier`, `S` being that tier's [`Simd`].
/// Leave the brackets out when the body has no parameter but `S`. With `[T: Lane][T]`, the body is compiled for AVX-512 with
/// BF16 only if T is bf16: for other types that tier runs the code of AVX-512, which does the same.
///
/// The caller of the defined function promises what the body requires. The function itself asserts that the processor has
/// the tier, since a `Tier` can be made without detection.
macro_rules! tiered {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $crate::simd::tiered!(@true $(#[$meta])* $vis fn $name[][]($($arg: $ty),*) $(-> $ret)? = $body);
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident[T: Lane][T]($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $crate::simd::tiered!(@(T::IS_BF16) $(#[$meta])* $vis fn $name[T: Lane][T]($($arg: $ty),*) $(-> $ret)? = $body);
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$($gen:tt)*][$($use:tt)*]($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $crate::simd::tiered!(@true $(#[$meta])* $vis fn $name[$($gen)*][$($use)*]($($arg: $ty),*) $(-> $ret)? = $body);
    };
    (@$bf16:tt $(#[$meta:meta])* $vis:vis fn $name:ident[$($gen:tt)*][$($use:tt)*]($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $body:ident) => {
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
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,bf16")]
            unsafe fn neonbf16<$($gen)*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { $body::<$crate::simd::NeonBf16, $($use)*>($($arg),*) }
            }
            assert!(tier.is_available(), "this processor has no {tier}");
            // SAFETY: the tier's features are there, as just asserted; the rest is the caller's promise.
            unsafe {
                match tier {
                    #[cfg(target_arch = "x86_64")]
                    $crate::Tier::Avx512Bf16 if $bf16 => avx512bf16::<$($use)*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Tier::Avx512 | $crate::Tier::Avx512Bf16 => avx512::<$($use)*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Tier::Avx2 => avx2::<$($use)*>($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::Tier::NeonBf16 => neonbf16::<$($use)*>($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::Tier::Neon => $body::<$crate::simd::Neon, $($use)*>($($arg),*),
                    _ => $body::<$crate::simd::Portable, $($use)*>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use crate::shared::Shared;
pub(crate) use tiered;
