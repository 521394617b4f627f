//! The register tile under every matrix product: `rows × NR` of C from a panel of A and a panel of B.
//!
//! A tier's tile is `Micro::MR` rows by `NR = 2 · LANES` columns, the largest whose sums stay in registers. B is packed
//! in panels of NR columns, k by k. A is packed k by k with `MR` rows side by side (a *packed* panel), or lies anywhere
//! with a stride from row to row and from k to k. [`Kernel`] holds one tier's functions for every number of rows, so
//! that a driver looks them up once.
//!
//! Each element of C is one chain of fused multiply-adds in the order of k, started at zero; where `add` is set the
//! chain's end is added to C. So a result depends on its own row and column only, not on how many rows a tile has.
//!
//! Forms of B, a panel being `[k][NR]` of:
//! - f32, or f16 widened on load: one k a step;
//! - [`Pair`]: two bf16 of neighbouring k, the first in the low half. A is f32 ([`pairs`]: both halves are widened), or
//!   pairs too ([`dots`]: AVX512-BF16's dot product, two fused multiply-adds elsewhere).

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
use super::{Lane, Portable, Simd};
use crate::Tier;
use half::f16;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Two bf16 of neighbouring k, the one of the even k in the low half.
pub(crate) type Pair = u32;

/// Vectors in a row of the tile.
const NV: usize = 2;

/// The most rows that a tile of any tier has.
pub(crate) const MAX_MR: usize = 14;

/// What the tile needs beside arithmetic: its height and the product of pairs.
///
/// # Safety
/// As [`Simd`]'s.
pub(crate) trait Micro: Simd {
    /// Rows of the tile: 2·MR sums, the 2 vectors of B and one of A fill the registers.
    const MR: usize;
    /// The low half of each lane's bits, as a bf16, widened.
    unsafe fn low(pairs: Self::V) -> Self::V;
    /// The high half.
    unsafe fn high(pairs: Self::V) -> Self::V;
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

#[cfg(target_arch = "x86_64")]
impl Micro for Avx2 {
    const MR: usize = 6;
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
    ($tier:ident { $($dot:item)? }) => {
        impl Micro for $tier {
            const MR: usize = MAX_MR;
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
            $($dot)?
        }
    };
}
#[cfg(target_arch = "x86_64")]
avx512!(Avx512 {});
#[cfg(target_arch = "x86_64")]
avx512!(Avx512Bf16 {
    /// The instruction takes denormals as zero.
    #[inline(always)]
    unsafe fn dot(acc: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller has AVX512-BF16; the types are 512 bits each.
        unsafe { _mm512_dpbf16_ps(acc, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)) }
    }
});

/// One step along k for a form of B: loads a word row of B, multiplies it with a row's word of A.
trait Step {
    /// Word of A and of B.
    type A: Copy;
    type B: Copy;
    /// Adds step `k` of `rows` rows to their sums.
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        a: *const Self::A,
        a_row: usize,
        a_k: usize,
        b: *const Self::B,
    );
    /// Words of A that one step takes along k.
    const A_WORDS: usize;
}

struct Wide<T>(std::marker::PhantomData<T>);
impl<T: Lane> Step for Wide<T> {
    type A = f32;
    type B = T;
    const A_WORDS: usize = 1;
    #[inline(always)]
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        a: *const f32,
        a_row: usize,
        _: usize,
        b: *const T,
    ) {
        // SAFETY: the caller's promise: NR elements at b, one of each row at a.
        unsafe {
            let (b0, b1) = (T::load::<S>(b), T::load::<S>(b.add(S::LANES)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = S::splat(*a.add(i * a_row));
                acc[0] = S::fma(a, b0, acc[0]);
                acc[1] = S::fma(a, b1, acc[1]);
            }
        }
    }
}

struct WidePairs;
impl Step for WidePairs {
    type A = f32;
    type B = Pair;
    const A_WORDS: usize = 2;
    #[inline(always)]
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        a: *const f32,
        a_row: usize,
        a_k: usize,
        b: *const Pair,
    ) {
        // SAFETY: the caller's promise: NR words at b, two f32 of each row at a.
        unsafe {
            let (b0, b1) = (S::load(b.cast()), S::load(b.cast::<f32>().add(S::LANES)));
            let (even0, even1) = (S::low(b0), S::low(b1));
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = S::splat(*a.add(i * a_row));
                acc[0] = S::fma(a, even0, acc[0]);
                acc[1] = S::fma(a, even1, acc[1]);
            }
            let (odd0, odd1) = (S::high(b0), S::high(b1));
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = S::splat(*a.add(a_k + i * a_row));
                acc[0] = S::fma(a, odd0, acc[0]);
                acc[1] = S::fma(a, odd1, acc[1]);
            }
        }
    }
}

struct Dots;
impl Step for Dots {
    type A = Pair;
    type B = Pair;
    const A_WORDS: usize = 1;
    #[inline(always)]
    unsafe fn step<S: Micro, const ROWS: usize>(
        acc: &mut [[S::V; NV]; ROWS],
        a: *const Pair,
        a_row: usize,
        _: usize,
        b: *const Pair,
    ) {
        // SAFETY: the caller's promise: NR words at b, one of each row at a.
        unsafe {
            let (b0, b1) = (S::load(b.cast()), S::load(b.cast::<f32>().add(S::LANES)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = S::splat(f32::from_bits(*a.add(i * a_row)));
                acc[0] = S::dot(acc[0], a, b0);
                acc[1] = S::dot(acc[1], a, b1);
            }
        }
    }
}

/// One tile. With `PACKED` the strides of A are those of a packed panel, and the compiler knows them.
#[allow(
    clippy::too_many_arguments,
    reason = "pointers and strides of a kernel"
)]
#[inline(always)]
unsafe fn tile<S: Micro, P: Step, const ROWS: usize, const PACKED: bool>(
    steps: usize,
    mut a: *const P::A,
    a_row: usize,
    a_k: usize,
    mut b: *const P::B,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let (a_row, a_k) = if PACKED { (1, S::MR) } else { (a_row, a_k) };
    // SAFETY: the caller's promise (see `Tile`).
    unsafe {
        let mut acc = [[S::zero(); NV]; ROWS];
        for _ in 0..steps {
            P::step::<S, ROWS>(&mut acc, a, a_row, a_k, b);
            // Wrapping: behind the last step the pointer may leave the panel; it is not read then.
            a = a.wrapping_add(P::A_WORDS * a_k);
            b = b.wrapping_add(NV * S::LANES);
        }
        for (i, acc) in acc.iter().enumerate() {
            for (j, &v) in acc.iter().enumerate() {
                let p = c.add(i * c_row + j * S::LANES);
                S::store(p, if add { S::add(S::load(p), v) } else { v });
            }
        }
    }
}

/// `tile(steps, a, a_row, a_k, b, c, c_row, add)`: C[rows, NR] = A·B, or C += A·B with `add`.
///
/// `steps` counts words of B along k (pairs count once). Row i of A at step s is `a[i·a_row + s·a_k]` (with f32 against
/// pairs, s counts single k, two a step); B's step s is `b[s·NR ..]`; row i of C is `c[i·c_row ..]`.
///
/// # Safety
/// The processor has the kernel's tier; all these elements lie in memory that may be read (C: written, by nobody else).
pub(crate) type Tile<A, B> =
    unsafe fn(usize, *const A, usize, usize, *const B, *mut f32, usize, bool);

/// The tile functions of one tier for one form of A and B.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<A, B> {
    /// Rows of a full tile, and of a packed panel of A.
    pub(crate) mr: usize,
    /// Columns of a tile and of a panel of B.
    pub(crate) nr: usize,
    tiles: [Tile<A, B>; MAX_MR],
}

impl<A, B> Kernel<A, B> {
    /// The function for a tile of `rows` rows, 1 to `mr`.
    #[inline(always)]
    pub(crate) fn tile(&self, rows: usize) -> Tile<A, B> {
        debug_assert!(
            (1..=self.mr).contains(&rows),
            "{rows} rows in a tile of {}",
            self.mr
        );
        self.tiles[rows - 1]
    }
}

/// Rows and columns of a tier's tile.
pub(crate) fn tile_shape(tier: Tier) -> (usize, usize) {
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 | Tier::Avx512Bf16 => (Avx512::MR, NV * Avx512::LANES),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => (Avx2::MR, NV * Avx2::LANES),
        _ => (Portable::MR, NV * Portable::LANES),
    }
}

/// The functions of one step form and tier, for each number of rows; those beyond the tier's MR are never called and
/// repeat the last.
macro_rules! table {
    ($f:ident, $p:ty, $packed:expr; $($rows:literal)*) => { [$($f::<$p, $rows, $packed>),*] };
}

fn kernel<P: Step, const PACKED: bool>(tier: Tier) -> Kernel<P::A, P::B> {
    macro_rules! compiled {
        ($name:ident, $tier:ty, $features:literal) => {
            #[allow(clippy::too_many_arguments, reason = "as `tile`")]
            #[target_feature(enable = $features)]
            unsafe fn $name<P: Step, const ROWS: usize, const PACKED: bool>(
                steps: usize,
                a: *const P::A,
                a_row: usize,
                a_k: usize,
                b: *const P::B,
                c: *mut f32,
                c_row: usize,
                add: bool,
            ) {
                // SAFETY: the caller's promise, passed on; the features are enabled here.
                unsafe { tile::<$tier, P, ROWS, PACKED>(steps, a, a_row, a_k, b, c, c_row, add) }
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    compiled!(
        avx512bf16,
        Avx512Bf16,
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
    );
    #[cfg(target_arch = "x86_64")]
    compiled!(
        avx512,
        Avx512,
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"
    );
    #[cfg(target_arch = "x86_64")]
    compiled!(avx2, Avx2, "avx2,fma,f16c");
    #[allow(clippy::too_many_arguments, reason = "as `tile`")]
    unsafe fn portable<P: Step, const ROWS: usize, const PACKED: bool>(
        steps: usize,
        a: *const P::A,
        a_row: usize,
        a_k: usize,
        b: *const P::B,
        c: *mut f32,
        c_row: usize,
        add: bool,
    ) {
        // SAFETY: the caller's promise, passed on.
        unsafe { tile::<Portable, P, ROWS, PACKED>(steps, a, a_row, a_k, b, c, c_row, add) }
    }
    let (mr, nr) = tile_shape(tier);
    let tiles: [Tile<P::A, P::B>; MAX_MR] = match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Bf16 => table!(avx512bf16, P, PACKED; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => table!(avx512, P, PACKED; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => table!(avx2, P, PACKED; 1 2 3 4 5 6 6 6 6 6 6 6 6 6),
        _ => table!(portable, P, PACKED; 1 2 3 4 5 6 6 6 6 6 6 6 6 6),
    };
    Kernel { mr, nr, tiles }
}

/// Packed A in f32 against B in f32.
pub(crate) fn packed(tier: Tier) -> Kernel<f32, f32> {
    kernel::<Wide<f32>, true>(tier)
}

/// A in f32 with any strides against B in f32.
pub(crate) fn strided(tier: Tier) -> Kernel<f32, f32> {
    kernel::<Wide<f32>, false>(tier)
}

/// Packed A in f32 against B in f16.
pub(crate) fn packed_f16(tier: Tier) -> Kernel<f32, f16> {
    kernel::<Wide<f16>, true>(tier)
}

/// Packed A in f32 against B in pairs of bf16.
pub(crate) fn packed_pairs(tier: Tier) -> Kernel<f32, Pair> {
    kernel::<WidePairs, true>(tier)
}

/// Packed A in pairs of bf16 against B in pairs.
pub(crate) fn packed_dots(tier: Tier) -> Kernel<Pair, Pair> {
    kernel::<Dots, true>(tier)
}

/// A in pairs of bf16 with any strides (in pairs) against B in pairs.
pub(crate) fn strided_dots(tier: Tier) -> Kernel<Pair, Pair> {
    kernel::<Dots, false>(tier)
}
