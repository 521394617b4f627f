//! Vectors of f32, and the element types that kernels load into them.

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
    /// As `store`, but bypasses the caches, so that the processor does not first read the lines that it overwrites. For
    /// results larger than the caches. `p` is aligned to the size of a vector; call [`fence`](Self::fence) before other
    /// threads read the result.
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
    /// Orders what this thread has streamed before what it stores later, as other threads see it.
    #[inline(always)]
    unsafe fn fence() {}

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a/b, rounded to nearest.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// 1/a to one unit in the last place, for 1 ≤ |a| ≤ 2^126. Quicker than a division on tiers that estimate it with
    /// enough bits.
    unsafe fn recip(a: Self::V) -> Self::V;
    /// a·b + c, rounded once where the tier has a fused instruction.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a·b, rounded once where the tier has a fused instruction.
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `b` where `a` is NaN, as the instruction of x86 does.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn abs(a: Self::V) -> Self::V;
    /// Lane by lane `if a > b { x } else { y }`.
    unsafe fn select_gt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Nearest integer, ties to even, for |a| < 2^22.
    unsafe fn round(a: Self::V) -> Self::V;
    /// a · 2^n, for an f32 n that is an integer in −126..=127 or comes from [`floor_parts`](Self::floor_parts).
    unsafe fn scale_pow2(a: Self::V, n: Self::V) -> Self::V;
    /// f in 0..=1 and n with 2^x = 2^f · 2^n, for x ≤ 127 that is not NaN. n is only for [`scale_pow2`](Self::scale_pow2).
    /// For x < −126 the power may be 2^−126 instead of 2^x.
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
    /// Whether a multiply-add takes one factor from a lane of a register, so that [`add_steps`](Self::add_steps) reads the
    /// numbers of `a` a vector at a time.
    const LANE_PRODUCTS: bool = false;
    /// sums\[i\] + a\[i\] · b for each row, as [`fma`](Self::fma). `ROWS` numbers are readable at `a`.
    #[inline(always)]
    unsafe fn add_products<const ROWS: usize, const NV: usize>(
        sums: &mut [[Self::V; NV]; ROWS],
        a: *const f32,
        b: [Self::V; NV],
    ) {
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as the trait's.
            unsafe {
                let a = Self::splat(*a.add(i));
                for (sum, &b) in sums.iter_mut().zip(&b) {
                    *sum = Self::fma(a, b, *sum);
                }
            }
        }
    }
    /// Adds `n` steps of a product: a\[i · row_step + k\] times the `NV` vectors at b + k · NV · LANES, one k after another.
    #[inline(always)]
    unsafe fn add_steps<const ROWS: usize, const NV: usize>(
        sums: &mut [[Self::V; NV]; ROWS],
        n: usize,
        a: *const f32,
        row_step: usize,
        b: *const f32,
    ) {
        for k in 0..n {
            // SAFETY: as the trait's.
            unsafe {
                let b: [_; NV] =
                    std::array::from_fn(|j| Self::load(b.add((k * NV + j) * Self::LANES)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = Self::splat(*a.add(i * row_step + k));
                    for (sum, &b) in sums.iter_mut().zip(&b) {
                        *sum = Self::fma(a, b, *sum);
                    }
                }
            }
        }
    }
    /// Words of bf16 pairs along k that stand next to each other in a panel, a *group*. Word w of row i of a panel of n rows is
    /// `panel[(w / G · n + i) · G + w % G]`.
    const PAIR_GROUP: usize = 1;
    /// Adds the products of one group of A and B in pairs of bf16, where `PAIR_GROUP` is 2: row i's group is at a + i · row_step,
    /// B's `NV · LANES` columns at b. The sums and `spare` are in an order of the tier until
    /// [`order_sums`](Self::order_sums); begin with zeros.
    #[inline(always)]
    unsafe fn add_groups<const ROWS: usize, const NV: usize>(
        _sums: &mut [[Self::V; NV]; ROWS],
        _spare: &mut [Self::V; NV],
        _a: *const u32,
        _row_step: usize,
        _b: *const u32,
    ) {
        unreachable!("called only where groups have two words")
    }
    /// Brings the sums of [`add_groups`](Self::add_groups) into the order of rows.
    #[inline(always)]
    unsafe fn order_sums<const ROWS: usize, const NV: usize>(
        _sums: &mut [[Self::V; NV]; ROWS],
        _spare: &[Self::V; NV],
    ) {
    }
    /// Word `w` of a group, of each of two vectors of columns: pairs of bf16.
    #[inline(always)]
    unsafe fn pair_columns(b: *const u32, w: usize) -> [Self::V; 2] {
        debug_assert_eq!(w, 0, "a group of one word");
        // SAFETY: as the trait's.
        unsafe {
            [
                Self::load(b.cast()),
                Self::load(b.cast::<f32>().add(Self::LANES)),
            ]
        }
    }
    /// Sum of the lanes, in a fixed order.
    unsafe fn sum(a: Self::V) -> f32;
    unsafe fn max_lane(a: Self::V) -> f32;
}

/// An element type that kernels load as vectors of f32 and store from them.
///
/// # Safety
/// As [`Simd`]'s.
pub(crate) trait Lane: Float {
    /// Whether the processor has instructions for this type that only [`Tier::Avx512Bf16`](crate::Tier) names. Kernels for
    /// other types run the code of [`Tier::Avx512`](crate::Tier) in that tier, so it is compiled once.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "only x86-64 has that tier")
    )]
    const IS_BF16: bool;
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    unsafe fn load_n<S: Simd>(p: *const Self, n: usize) -> S::V;
    unsafe fn store<S: Simd>(p: *mut Self, v: S::V);
    unsafe fn store_n<S: Simd>(p: *mut Self, n: usize, v: S::V);
    unsafe fn stream<S: Simd>(p: *mut Self, v: S::V);
}

macro_rules! lane {
    ($t:ty, $is_bf16:expr, $load:ident, $load_n:ident, $store:ident, $store_n:ident, $stream:ident) => {
        impl Lane for $t {
            const IS_BF16: bool = $is_bf16;
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
lane!(f32, false, load, load_n, store, store_n, stream);
lane!(
    bf16,
    true,
    load_bf16,
    load_bf16_n,
    store_bf16,
    store_bf16_n,
    stream_bf16
);
lane!(
    f16,
    false,
    load_f16,
    load_f16_n,
    store_f16,
    store_f16_n,
    stream_f16
);
