//! What a 32-bit word of the input's copy and of the packed weights holds: an f32, or two bf16 of neighbouring channels.

#![allow(
    clippy::needless_range_loop,
    reason = "indices of register arrays: iterators over them end up in memory"
)]

use crate::simd::{Lane, microkernel::Micro};

/// The words of a product.
pub(super) trait ChannelWords {
    /// Channels in a word of the weights.
    const OF_WEIGHTS: usize;
    /// Channels in a word of the copied input.
    const OF_INPUT: usize;

    /// Words of the `LANES` channels of a pixel.
    #[inline(always)]
    fn pixel<S: Micro>() -> usize {
        S::LANES / Self::OF_INPUT
    }

    /// Copies `n` ≤ `LANES` channels of a pixel, and zeros behind them.
    ///
    /// # Safety
    /// The processor has the tier; `from` has n elements, `to` room for [`pixel`](Self::pixel) words.
    #[inline(always)]
    unsafe fn copy<S: Micro, T: Lane>(from: *const T, n: usize, to: *mut f32) {
        // SAFETY: the caller's promise; this is for words of f32.
        unsafe {
            let v = if n == S::LANES {
                T::load::<S>(from)
            } else {
                T::load_n::<S>(from, n)
            };
            S::store(to, v);
        }
    }

    /// sum + the product of a word of the input, in every lane, and a vector of words of weights.
    ///
    /// # Safety
    /// The processor has the tier.
    #[inline(always)]
    unsafe fn add_product<S: Micro>(sum: S::V, word: S::V, weights: S::V) -> S::V {
        // SAFETY: the caller's promise; this is for words of f32.
        unsafe { S::fma(word, weights, sum) }
    }

    /// Adds the products of word `k` of MR pixels with NV vectors of weights at `b`.
    ///
    /// # Safety
    /// The processor has the tier; there are these words.
    #[inline(always)]
    unsafe fn multiply<S: Micro, const MR: usize, const NV: usize>(
        acc: &mut [[S::V; NV]; MR],
        row: *const f32,
        k: usize,
        b: *const f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let w: [S::V; NV] = std::array::from_fn(|j| S::load(b.add(j * S::LANES)));
            for i in 0..MR {
                let v = S::splat(*row.add(i * Self::pixel::<S>() + k));
                for j in 0..NV {
                    acc[i][j] = Self::add_product::<S>(acc[i][j], v, w[j]);
                }
            }
        }
    }
}

/// f32 on both sides.
pub(super) struct SingleChannels;

impl ChannelWords for SingleChannels {
    const OF_WEIGHTS: usize = 1;
    const OF_INPUT: usize = 1;
}

/// Pairs of bf16 on both sides, for the instruction of AVX512-BF16. The input is bf16.
pub(super) struct ChannelPairs;

impl ChannelWords for ChannelPairs {
    const OF_WEIGHTS: usize = 2;
    const OF_INPUT: usize = 2;

    #[inline(always)]
    unsafe fn copy<S: Micro, T: Lane>(from: *const T, n: usize, to: *mut f32) {
        // Known to the compiler, so it costs nothing.
        assert_eq!(size_of::<T>(), 2, "pairs are of bf16");
        // SAFETY: the caller's promise; LANES / 2 words hold LANES elements of two bytes.
        unsafe {
            if n == S::LANES {
                to.cast::<T>().copy_from_nonoverlapping(from, S::LANES);
            } else {
                to.write_bytes(0, S::LANES / 2);
                to.cast::<T>().copy_from_nonoverlapping(from, n);
            }
        }
    }

    #[inline(always)]
    unsafe fn add_product<S: Micro>(sum: S::V, word: S::V, weights: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::dot(sum, word, weights) }
    }
}

/// An input in f32 against weights in pairs of bf16, which are widened: for inputs of another dtype than the weights.
pub(super) struct WideChannelPairs;

impl ChannelWords for WideChannelPairs {
    const OF_WEIGHTS: usize = 2;
    const OF_INPUT: usize = 1;

    #[inline(always)]
    unsafe fn multiply<S: Micro, const MR: usize, const NV: usize>(
        acc: &mut [[S::V; NV]; MR],
        row: *const f32,
        k: usize,
        b: *const f32,
    ) {
        // SAFETY: the caller's promise. LANES is even, so channel 2k + 1 is in the pixel: 0 where the input has none.
        unsafe {
            let w: [S::V; NV] = std::array::from_fn(|j| S::load(b.add(j * S::LANES)));
            for i in 0..MR {
                let v = row.add(i * S::LANES + 2 * k);
                let (even, odd) = (S::splat(*v), S::splat(*v.add(1)));
                for j in 0..NV {
                    acc[i][j] = S::fma(even, S::low(w[j]), acc[i][j]);
                    acc[i][j] = S::fma(odd, S::high(w[j]), acc[i][j]);
                }
            }
        }
    }
}
