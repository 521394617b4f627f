//! The register tile under every matrix product: `rows × NR` of C from a panel of A and a panel of B.
//!
//! A tile of a tier has `Micro::MR` rows and `NR = 2 · LANES` columns: the largest whose sums stay in registers. B is packed
//! in panels of NR columns, k by k; A is packed k by k with `MR` rows side by side. [`Kernel`] holds the functions of a tier
//! for every number of rows, so that a driver looks them up once.
//!
//! Each element of C is one chain of fused multiply-adds in the order of k that starts at zero. Its end is added to the
//! element that [`Sums`] names. A result therefore depends on its row and column alone, not on the number of rows in a tile.
//!
//! A panel of B is `[k][NR]` of one of:
//! - f32, or f16 that is widened when it is loaded: one k a step;
//! - [`Pair`]: two bf16 of neighbouring k, the first in the low half. A is either f32 ([`packed_pairs`]: both halves are
//!   widened), or pairs too ([`packed_dots`]: the dot product of AVX512-BF16, or two fused multiply-adds on other tiers).

mod step;
mod sums;

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
#[cfg(target_arch = "aarch64")]
use super::{Neon, NeonBf16};
use super::{Portable, Simd};
use crate::Tier;
use half::f16;
use step::{DotPairs, NV, Step, Wide, WidePairs, prefetch_stride};
pub(crate) use step::{MAX_MR, Micro, Pair};
pub(crate) use sums::Sums;

/// What a tile prefetches for the tiles after it: every few steps ([`Kernel::stride`]) the cache line at each place, which
/// then moves on by its stride in bytes. The three streams are A, B and the memory that C will be stored to.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) places: [*const u8; 3],
    pub(crate) strides: [usize; 3],
}

/// One tile of packed A.
#[inline(always)]
unsafe fn tile<S: Micro, P: Step, const ROWS: usize>(
    ahead: Option<&Ahead>,
    steps: usize,
    mut a: *const P::A,
    mut b: *const P::B,
    sums: &Sums,
) {
    // SAFETY: the caller's promise (see `Tile`).
    unsafe {
        let mut acc = [[S::zero(); NV]; ROWS];
        let mut spare = [S::zero(); NV];
        let words = P::words::<S>();
        let turns = steps / words;
        // A macro, since a closure that is called twice is not inlined. Wrapping: behind the last step the pointers may leave
        // the panel; they are not read then.
        macro_rules! step {
            () => {
                P::step::<S, ROWS>(&mut acc, &mut spare, a, b);
                a = a.wrapping_add(P::A_WORDS * S::MR * words);
                b = b.wrapping_add(NV * S::LANES * words);
            };
        }
        if let Some(ahead) = ahead {
            let mut places = ahead.places;
            for _ in 0..turns / S::STRIDE {
                for (place, stride) in places.iter_mut().zip(ahead.strides) {
                    S::prefetch(*place);
                    *place = place.wrapping_add(stride);
                }
                for _ in 0..S::STRIDE {
                    step!();
                }
            }
            for _ in 0..turns % S::STRIDE {
                step!();
            }
        } else {
            for _ in 0..turns {
                near::<S, P>(b);
                step!();
            }
        }
        P::finish::<S, ROWS>(&mut acc, &spare);
        sums.put::<S, ROWS>(&acc, 0);
    }
}

/// Prefetches the step of B that comes `DISTANCE` bytes later. Weights that are read once come from memory, and faster so
/// than by the prefetching of the processor alone.
#[inline(always)]
unsafe fn near<S: Micro, P: Step>(b: *const P::B) {
    const DISTANCE: usize = 2048;
    for line in (0..NV * S::LANES * size_of::<P::B>()).step_by(64) {
        // SAFETY: any address will do.
        unsafe { S::prefetch(b.cast::<u8>().wrapping_add(DISTANCE + line)) };
    }
}

/// A tile of few rows and several panels of B, `panel` words apart. Each word of B is used only a few times here, and
/// reading from several places at a time keeps the memory busy.
#[inline(always)]
unsafe fn few<S: Micro, P: Step, const ROWS: usize, const PANELS: usize>(
    steps: usize,
    mut a: *const P::A,
    mut b: *const P::B,
    panel: usize,
    sums: &Sums,
) {
    // SAFETY: the caller's promise (see `FewTile`).
    unsafe {
        let mut acc = [[[S::zero(); NV]; ROWS]; PANELS];
        let mut spare = [[S::zero(); NV]; PANELS];
        let words = P::words::<S>();
        for _ in 0..steps / words {
            for (g, (acc, spare)) in acc.iter_mut().zip(&mut spare).enumerate() {
                let b = b.add(g * panel);
                near::<S, P>(b);
                P::step::<S, ROWS>(acc, spare, a, b);
            }
            a = a.wrapping_add(P::A_WORDS * S::MR * words);
            b = b.wrapping_add(NV * S::LANES * words);
        }
        for (g, (acc, spare)) in acc.iter_mut().zip(&spare).enumerate() {
            P::finish::<S, ROWS>(acc, spare);
            sums.put::<S, ROWS>(acc, g * NV * S::LANES);
        }
    }
}

/// `tile(steps, a, b, sums)`: A[rows, k]·B[k, NR], to where `sums` says.
///
/// `steps` counts words of B along k (pairs count once). Row i of A at step s is `a[i + s·MR]` (with f32 against pairs, s
/// counts single k, two a step); B's step s is `b[s·NR ..]`. Where pairs stand in groups, `steps` is a multiple of
/// [`pair_group`], and the words within a group are in its order.
///
/// # Safety
/// The processor has the kernel's tier; all these elements lie in memory that may be read, or written, by nobody else.
pub(crate) type Tile<A, B> = unsafe fn(usize, *const A, *const B, &Sums);

/// `tile(ahead, steps, a, b, sums)`: a full tile that prefetches; otherwise as [`Tile`].
///
/// # Safety
/// As there. The places ahead may be any addresses.
pub(crate) type AheadTile<A, B> = unsafe fn(&Ahead, usize, *const A, *const B, &Sums);

/// `tile(steps, a, b, panel, sums)`: packed A against several panels of B, `panel` words apart, their columns of C side by
/// side; otherwise as [`Tile`].
///
/// # Safety
/// As there, for each panel.
pub(crate) type FewTile<A, B> = unsafe fn(usize, *const A, *const B, usize, &Sums);

/// A [`FewTile`] with its number of rows and of panels.
#[derive(Clone, Copy)]
pub(crate) struct Few<A, B> {
    pub(crate) rows: usize,
    pub(crate) panels: usize,
    pub(crate) tile: FewTile<A, B>,
}

/// The tile functions of one tier for one form of A and B.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<A, B> {
    /// Rows of a full tile, and of a packed panel of A.
    pub(crate) mr: usize,
    /// Columns of a tile and of a panel of B.
    pub(crate) nr: usize,
    /// Steps of `ahead` from one prefetch to the next.
    pub(crate) stride: usize,
    tiles: [Tile<A, B>; MAX_MR],
    /// A full tile of packed A that prefetches.
    pub(crate) ahead: AheadTile<A, B>,
    /// For 1, 2 and 4 rows, in this order.
    pub(crate) few: [Few<A, B>; 3],
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
        #[cfg(target_arch = "aarch64")]
        Tier::Neon | Tier::NeonBf16 => (Neon::MR, NV * Neon::LANES),
        _ => (Portable::MR, NV * Portable::LANES),
    }
}

/// Words of a group of pairs in panels of this tier ([`Simd::PAIR_GROUP`]).
pub(crate) fn pair_group(tier: Tier) -> usize {
    match tier {
        #[cfg(target_arch = "aarch64")]
        Tier::NeonBf16 => NeonBf16::PAIR_GROUP,
        _ => Portable::PAIR_GROUP,
    }
}

/// The functions of one step form and tier for each number of rows. Entries beyond the MR of the tier repeat the last one
/// and are never called.
macro_rules! table {
    ($f:ident, $p:ty; $($rows:literal)*) => { [$($f::<$p, $rows>),*] };
}

fn kernel<P: Step>(tier: Tier) -> Kernel<P::A, P::B> {
    macro_rules! compiled {
        ($name:ident, $ahead:ident, $few:ident, $tier:ty, $mr:expr $(, $features:literal)?) => {
            $(#[target_feature(enable = $features)])?
            unsafe fn $name<P: Step, const ROWS: usize>(
                steps: usize,
                a: *const P::A,
                b: *const P::B,
                sums: &Sums,
            ) {
                // SAFETY: the caller's promise, passed on; the features are enabled here.
                unsafe { tile::<$tier, P, ROWS>(None, steps, a, b, sums) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn $few<P: Step, const ROWS: usize, const PANELS: usize>(
                steps: usize,
                a: *const P::A,
                b: *const P::B,
                panel: usize,
                sums: &Sums,
            ) {
                // SAFETY: as above.
                unsafe { few::<$tier, P, ROWS, PANELS>(steps, a, b, panel, sums) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn $ahead<P: Step>(
                ahead: &Ahead,
                steps: usize,
                a: *const P::A,
                b: *const P::B,
                sums: &Sums,
            ) {
                // SAFETY: as above.
                unsafe { tile::<$tier, P, { $mr }>(Some(ahead), steps, a, b, sums) }
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    compiled!(
        avx512bf16,
        avx512bf16_ahead,
        avx512bf16_few,
        Avx512Bf16,
        Avx512Bf16::MR,
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
    );
    #[cfg(target_arch = "x86_64")]
    compiled!(
        avx512,
        avx512_ahead,
        avx512_few,
        Avx512,
        Avx512::MR,
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"
    );
    #[cfg(target_arch = "x86_64")]
    compiled!(avx2, avx2_ahead, avx2_few, Avx2, Avx2::MR, "avx2,fma,f16c");
    compiled!(
        portable,
        portable_ahead,
        portable_few,
        Portable,
        Portable::MR
    );
    #[cfg(target_arch = "aarch64")]
    compiled!(neon, neon_ahead, neon_few, Neon, Neon::MR);
    #[cfg(target_arch = "aarch64")]
    compiled!(
        neonbf16,
        neonbf16_ahead,
        neonbf16_few,
        NeonBf16,
        NeonBf16::MR,
        "neon,bf16"
    );
    macro_rules! fews {
        ($few:ident, $one:literal $two:literal $four:literal) => {
            [
                Few {
                    rows: 1,
                    panels: $one,
                    tile: $few::<P, 1, $one>,
                },
                Few {
                    rows: 2,
                    panels: $two,
                    tile: $few::<P, 2, $two>,
                },
                Few {
                    rows: 4,
                    panels: $four,
                    tile: $few::<P, 4, $four>,
                },
            ]
        };
    }
    let (mr, nr) = tile_shape(tier);
    let stride = prefetch_stride(tier);
    let tiles: [Tile<P::A, P::B>; MAX_MR] = match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Bf16 => table!(avx512bf16, P; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => table!(avx512, P; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => table!(avx2, P; 1 2 3 4 5 6 6 6 6 6 6 6 6 6),
        #[cfg(target_arch = "aarch64")]
        Tier::NeonBf16 => table!(neonbf16, P; 1 2 3 4 5 6 6 6 6 6 6 6 6 6),
        #[cfg(target_arch = "aarch64")]
        Tier::Neon => table!(neon, P; 1 2 3 4 5 6 6 6 6 6 6 6 6 6),
        _ => table!(portable, P; 1 2 3 4 5 6 6 6 6 6 6 6 6 6),
    };
    let ahead: AheadTile<P::A, P::B> = match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Bf16 => avx512bf16_ahead::<P>,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => avx512_ahead::<P>,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => avx2_ahead::<P>,
        #[cfg(target_arch = "aarch64")]
        Tier::NeonBf16 => neonbf16_ahead::<P>,
        #[cfg(target_arch = "aarch64")]
        Tier::Neon => neon_ahead::<P>,
        _ => portable_ahead::<P>,
    };
    let few = match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Bf16 => fews!(avx512bf16_few, 8 4 2),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => fews!(avx512_few, 8 4 2),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => fews!(avx2_few, 4 2 1),
        #[cfg(target_arch = "aarch64")]
        Tier::NeonBf16 => fews!(neonbf16_few, 4 2 1),
        #[cfg(target_arch = "aarch64")]
        Tier::Neon => fews!(neon_few, 4 2 1),
        _ => fews!(portable_few, 1 1 1),
    };
    Kernel {
        mr,
        nr,
        stride,
        tiles,
        ahead,
        few,
    }
}

/// Packed A in f32 against B in f32.
pub(crate) fn packed(tier: Tier) -> Kernel<f32, f32> {
    kernel::<Wide<f32>>(tier)
}

/// Packed A in f32 against B in f16.
pub(crate) fn packed_f16(tier: Tier) -> Kernel<f32, f16> {
    kernel::<Wide<f16>>(tier)
}

/// Packed A in f32 against B in pairs of bf16.
pub(crate) fn packed_pairs(tier: Tier) -> Kernel<f32, Pair> {
    kernel::<WidePairs>(tier)
}

/// Packed A in pairs of bf16 against B in pairs.
pub(crate) fn packed_dots(tier: Tier) -> Kernel<Pair, Pair> {
    kernel::<DotPairs>(tier)
}
