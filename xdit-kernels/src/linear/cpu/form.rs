//! How the weights of each dtype are multiplied by the packed input.

use super::input::PackedWord;
use crate::{
    Tier,
    simd::{
        Lane, Simd,
        microkernel::{self, Kernel, Micro, Pair},
        tiered,
    },
};
use half::f16;

/// How the weights of one dtype are multiplied by the packed input.
///
/// A *word* is an entry of a panel: one element, or a pair of bf16.
pub(super) trait Form {
    /// A word of the packed input.
    type A: PackedWord;
    /// A word of the weights.
    type B: Copy + Send + Sync;
    /// k's in a word of the weights.
    const B_KS: usize;
    /// k's that are summed in one chain, which is then added to the sum of the blocks before it. In f32 the error of a sum
    /// grows with the length of its chain; besides, a block of weights for one tile stays in the cache near the core.
    fn block(tier: Tier) -> usize {
        match tier {
            Tier::Avx2 => AVX2_BLOCK,
            _ => 384,
        }
    }
    fn kernel(tier: Tier) -> Kernel<Self::A, Self::B>;
    /// Whether weights are narrower than the arithmetic, so that a block for many rows is widened before it is used. The
    /// packed input is then f32.
    const NARROW: bool;
    /// Writes the `words` words at `b` as f32, k by k.
    ///
    /// # Safety
    /// `words · nr` words at `b`; room for their elements at `out`; the processor has the tier.
    unsafe fn widen(_tier: Tier, _b: *const Self::B, _words: usize, _out: *mut f32) {}
}

/// With 16 columns a block takes 16 KiB, so that a panel of rows fits beside it into a first-level cache of 32 KiB.
const AVX2_BLOCK: usize = 256;

pub(super) struct F32;
impl Form for F32 {
    type A = f32;
    type B = f32;
    const B_KS: usize = 1;
    const NARROW: bool = false;
    fn kernel(tier: Tier) -> Kernel<f32, f32> {
        microkernel::packed(tier)
    }
}

pub(super) struct F16;
impl Form for F16 {
    type A = f32;
    type B = f16;
    const B_KS: usize = 1;
    const NARROW: bool = true;
    fn kernel(tier: Tier) -> Kernel<f32, f16> {
        microkernel::packed_f16(tier)
    }
    unsafe fn widen(tier: Tier, b: *const f16, words: usize, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { widen_f16(tier, b, words, out) }
    }
}

pub(super) struct Pairs;
impl Form for Pairs {
    type A = f32;
    type B = Pair;
    const B_KS: usize = 2;
    const NARROW: bool = true;
    fn kernel(tier: Tier) -> Kernel<f32, Pair> {
        microkernel::packed_pairs(tier)
    }
    unsafe fn widen(tier: Tier, b: *const Pair, words: usize, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { widen_pairs(tier, b, words, out) }
    }
}

pub(super) struct Dots;
impl Form for Dots {
    type A = Pair;
    type B = Pair;
    const B_KS: usize = 2;
    // Products of bf16 are too coarse for shorter chains to matter, and at this rate adding a block to its sums takes a
    // hundredth of the time.
    fn block(_: Tier) -> usize {
        1024
    }
    const NARROW: bool = false;
    fn kernel(tier: Tier) -> Kernel<Pair, Pair> {
        microkernel::packed_dots(tier)
    }
}

/// # Safety
/// `words · NR` elements at `b`, as much room at `out`.
#[inline(always)]
unsafe fn widen_f16_body<S: Simd>(b: *const f16, words: usize, out: *mut f32) {
    for i in 0..words * 2 {
        // SAFETY: a row of NR is two vectors; the caller's promise.
        unsafe { S::store(out.add(i * S::LANES), f16::load::<S>(b.add(i * S::LANES))) };
    }
}
tiered!(fn widen_f16(b: *const f16, words: usize, out: *mut f32) = widen_f16_body);

/// # Safety
/// `words · NR` pairs at `b`, room for twice as many f32 at `out`.
#[inline(always)]
unsafe fn widen_pairs_body<S: Micro>(b: *const Pair, words: usize, out: *mut f32) {
    let nr = 2 * S::LANES;
    for w in 0..words {
        let (group, word) = (w / S::PAIR_GROUP, w % S::PAIR_GROUP);
        // SAFETY: word row w gives k rows 2w and 2w + 1; the caller's promise.
        unsafe {
            let columns = S::pair_columns(b.add(group * S::PAIR_GROUP * nr), word);
            for (j, pairs) in columns.into_iter().enumerate() {
                let out = out.add(2 * w * nr + j * S::LANES);
                S::store(out, S::low(pairs));
                S::store(out.add(nr), S::high(pairs));
            }
        }
    }
}
tiered!(fn widen_pairs(b: *const Pair, words: usize, out: *mut f32) = widen_pairs_body);
