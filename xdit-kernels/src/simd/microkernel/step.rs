//! What one step along k does, for each form of A and B.

use crate::Tier;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512, Avx512Bf16};
use crate::simd::{Lane, Portable, Simd};
#[cfg(target_arch = "aarch64")]
use crate::simd::{Neon, NeonBf16};
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Two bf16 of neighbouring k, the one of the even k in the low half.
pub(crate) type Pair = u32;

/// Vectors in a row of the tile.
pub(super) const NV: usize = 2;

/// The most rows that a tile of any tier has.
pub(crate) const MAX_MR: usize = 14;

/// What the tile needs of a tier beside arithmetic: the number of its rows, and the product of pairs.
///
/// # Safety
/// As [`Simd`]'s.
pub(crate) trait Micro: Simd {
    /// Rows of the tile: 2·MR sums, 2 vectors of B and one of A fill the registers.
    const MR: usize;
    /// Steps along k from one prefetch of what follows to the next. A step of a low tile has little to hide it behind.
    const STRIDE: usize = 1;
    /// Whether [`dot`](Self::dot) is one instruction.
    const DOTS: bool = false;
    /// The low half of each lane's bits, as a bf16, widened.
    unsafe fn low(pairs: Self::V) -> Self::V;
    /// The high half.
    unsafe fn high(pairs: Self::V) -> Self::V;
    /// Prefetches a cache line. Any address is allowed.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    /// acc + a.high·b.high + a.low·b.low, each step rounded to f32.
    #[inline(always)]
    unsafe fn dot(acc: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe {
            let acc = Self::fma(Self::high(a), Self::high(b), acc);
            Self::fma(Self::low(a), Self::low(b), acc)
        }
    }
}

impl Micro for Portable {
    // SSE2 has sixteen registers of four lanes; NEON thirty-two.
    const MR: usize = if cfg!(target_arch = "aarch64") { 6 } else { 2 };
    #[inline(always)]
    unsafe fn low(pairs: Self::V) -> Self::V {
        pairs.map(|x| f32::from_bits(x.to_bits() << 16))
    }
    #[inline(always)]
    unsafe fn high(pairs: Self::V) -> Self::V {
        pairs.map(|x| f32::from_bits(x.to_bits() & 0xffff_0000))
    }
}

#[cfg(target_arch = "aarch64")]
macro_rules! neon {
    ($tier:ty) => {
        impl Micro for $tier {
            const MR: usize = 6;
            #[inline(always)]
            unsafe fn low(pairs: Self::V) -> Self::V {
                // SAFETY: NEON is part of aarch64.
                pairs.map(|x| unsafe {
                    vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(x)))
                })
            }
            #[inline(always)]
            unsafe fn high(pairs: Self::V) -> Self::V {
                // SAFETY: NEON is part of aarch64.
                pairs.map(|x| unsafe {
                    vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(!0xffff)))
                })
            }
        }
    };
}
#[cfg(target_arch = "aarch64")]
neon!(Neon);
#[cfg(target_arch = "aarch64")]
neon!(NeonBf16);

#[cfg(target_arch = "x86_64")]
impl Micro for Avx2 {
    const MR: usize = 6;
    const STRIDE: usize = 4;
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees, so any address is fine.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn low(pairs: Self::V) -> Self::V {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(pairs))) }
    }
    #[inline(always)]
    unsafe fn high(pairs: Self::V) -> Self::V {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(!0xffff))) }
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! avx512 {
    ($tier:ident { $($dot:item)* }) => {
        impl Micro for $tier {
            const MR: usize = MAX_MR;
            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                // SAFETY: a prefetch reads nothing that the program sees, so any address is fine.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
            }
            #[inline(always)]
            unsafe fn low(pairs: Self::V) -> Self::V {
                // SAFETY: the caller has AVX-512.
                unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pairs))) }
            }
            #[inline(always)]
            unsafe fn high(pairs: Self::V) -> Self::V {
                // SAFETY: the caller has AVX-512.
                unsafe { _mm512_and_ps(pairs, _mm512_castsi512_ps(_mm512_set1_epi32(!0xffff))) }
            }
            $($dot)*
        }
    };
}
#[cfg(target_arch = "x86_64")]
avx512!(Avx512 {});
#[cfg(target_arch = "x86_64")]
avx512!(Avx512Bf16 {
    const DOTS: bool = true;
    /// The instruction treats denormals as zero.
    #[inline(always)]
    unsafe fn dot(acc: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller has AVX512-BF16; the types are 512 bits each.
        unsafe { _mm512_dpbf16_ps(acc, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)) }
    }
});

/// [`Micro::STRIDE`] of a tier.
pub(super) fn prefetch_stride(tier: Tier) -> usize {
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => Avx2::STRIDE,
        _ => 1,
    }
}

/// One step along k for a form of B: loads a row of words of B and multiplies it by a word of each row of A.
pub(crate) trait Step {
    /// Word of A and of B.
    type A: Copy;
    type B: Copy;
    /// Adds a step, or a group of steps, of `ROWS` rows to their sums. `spare` is room for tiers that sum two rows together.
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        spare: &mut [S::V; NV],
        a: *const Self::A,
        b: *const Self::B,
    );
    /// Words of B along k that a call of [`step`](Self::step) takes.
    #[inline(always)]
    fn words<S: Micro>() -> usize {
        1
    }
    /// Brings the sums into the order of rows after the last step.
    #[inline(always)]
    unsafe fn finish<S: Micro, const ROWS: usize>(_: &mut [[S::V; NV]; ROWS], _: &[S::V; NV]) {}
    /// Words of A that one step takes along k.
    const A_WORDS: usize;
}

pub(crate) struct Wide<T>(PhantomData<T>);
impl<T: Lane> Step for Wide<T> {
    type A = f32;
    type B = T;
    const A_WORDS: usize = 1;
    #[inline(always)]
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        _: &mut [S::V; NV],
        a: *const f32,
        b: *const T,
    ) {
        // SAFETY: the caller's promise: NR elements at b, one of each row at a.
        unsafe {
            S::add_products(acc, a, [T::load::<S>(b), T::load::<S>(b.add(S::LANES))]);
        }
    }
}

pub(crate) struct WidePairs;
impl Step for WidePairs {
    type A = f32;
    type B = Pair;
    const A_WORDS: usize = 2;
    #[inline(always)]
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        _: &mut [S::V; NV],
        a: *const f32,
        b: *const Pair,
    ) {
        // SAFETY: the caller's promise: NR words at b, two f32 of each row at a.
        unsafe {
            for w in 0..S::PAIR_GROUP {
                let [b0, b1] = S::pair_columns(b, w);
                let a = a.add(2 * w * S::MR);
                S::add_products(acc, a, [S::low(b0), S::low(b1)]);
                S::add_products(acc, a.add(S::MR), [S::high(b0), S::high(b1)]);
            }
        }
    }
    #[inline(always)]
    fn words<S: Micro>() -> usize {
        S::PAIR_GROUP
    }
}

pub(crate) struct DotPairs;
impl Step for DotPairs {
    type A = Pair;
    type B = Pair;
    const A_WORDS: usize = 1;
    #[inline(always)]
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        spare: &mut [S::V; NV],
        a: *const Pair,
        b: *const Pair,
    ) {
        // SAFETY: the caller's promise: NR words at b, one of each row at a.
        unsafe {
            if S::PAIR_GROUP == 2 {
                return S::add_groups(acc, spare, a, 2, b);
            }
            let (b0, b1) = (S::load(b.cast()), S::load(b.cast::<f32>().add(S::LANES)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = S::splat(f32::from_bits(*a.add(i)));
                acc[0] = S::dot(acc[0], a, b0);
                acc[1] = S::dot(acc[1], a, b1);
            }
        }
    }
    #[inline(always)]
    fn words<S: Micro>() -> usize {
        S::PAIR_GROUP
    }
    #[inline(always)]
    unsafe fn finish<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        spare: &[S::V; NV],
    ) {
        // SAFETY: the caller's promise.
        unsafe { S::order_sums(acc, spare) }
    }
}
