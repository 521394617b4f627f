//! NEON, which every aarch64 processor has: eight lanes in two registers; tails go through a small array.
//! With two registers a vector, a tile of 6 rows and 2 vectors has 24 sums, 4 registers of B and 2 of A, of 32 registers. Its
//! multiply-adds take the numbers of A by lane, so that no instruction spreads them.

use super::lane::Simd;
use half::{bf16, f16};
use std::arch::{aarch64::*, asm};

/// NEON, of ARMv8.0.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

pub(super) const LANES: usize = 8;
pub(super) type Eight = [float32x4_t; 2];

#[inline(always)]
pub(super) fn map(a: Eight, f: impl Fn(float32x4_t) -> float32x4_t) -> Eight {
    [f(a[0]), f(a[1])]
}

#[inline(always)]
pub(super) fn zip(
    a: Eight,
    b: Eight,
    f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t,
) -> Eight {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// sum + a[LANE]·b. The lane becomes a constant when the loop around it is unrolled.
#[inline(always)]
pub(super) fn fma_lane(sum: Eight, a: float32x4_t, lane: usize, b: Eight) -> Eight {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        match lane % 4 {
            0 => zip(sum, b, |s, b| vfmaq_laneq_f32::<0>(s, b, a)),
            1 => zip(sum, b, |s, b| vfmaq_laneq_f32::<1>(s, b, a)),
            2 => zip(sum, b, |s, b| vfmaq_laneq_f32::<2>(s, b, a)),
            _ => zip(sum, b, |s, b| vfmaq_laneq_f32::<3>(s, b, a)),
        }
    }
}

/// The first `N` numbers of up to eight at `p`, the lanes behind them anything.
///
/// # Safety
/// `N` f32 are readable at `p`.
#[inline(always)]
pub(super) unsafe fn load_first<const N: usize>(p: *const f32) -> Eight {
    // SAFETY: the caller's promise: four, two or one are read where as many are left.
    unsafe {
        let part = |at: usize| match N.saturating_sub(at) {
            0 => vdupq_n_f32(0.0),
            1 => vld1q_dup_f32(p.add(at)),
            2 => vcombine_f32(vld1_f32(p.add(at)), vdup_n_f32(0.0)),
            3 => vcombine_f32(vld1_f32(p.add(at)), vld1_dup_f32(p.add(at + 2))),
            _ => vld1q_f32(p.add(at)),
        };
        [part(0), part(4)]
    }
}

/// Nearest even by integer arithmetic; NaN stays NaN.
#[inline(always)]
pub(super) fn round_bf16(v: Eight) -> uint16x8_t {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let part = |v: float32x4_t| {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(v, v), rounded, quiet))
        };
        vcombine_u16(part(v[0]), part(v[1]))
    }
}

/// Nearest even. The intrinsics of half precision are not stable in the least Rust version that this crate supports. No
/// `preserves_flags`, here and below: conversions set the flags of inexact and invalid results.
#[inline(always)]
pub(super) fn round_f16(v: Eight) -> uint16x8_t {
    // SAFETY: instructions of ARMv8.0 on registers.
    unsafe {
        let part = |v: float32x4_t| {
            let out: uint16x4_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) out, in(vreg) v, options(pure, nomem, nostack));
            out
        };
        vcombine_u16(part(v[0]), part(v[1]))
    }
}

/// Widens eight f16.
#[inline(always)]
pub(super) fn widen_f16(v: uint16x8_t) -> Eight {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: instructions of ARMv8.0 on registers.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) low, in(vreg) v, options(pure, nomem, nostack));
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) high, in(vreg) v, options(pure, nomem, nostack));
    }
    [low, high]
}

macro_rules! neon {
    ($tier:ident, $round:ident { $($groups:item)* }) => {
        #[allow(
            clippy::undocumented_unsafe_blocks,
            reason = "each is a few instructions under the trait's contract"
        )]
        impl Simd for $tier {
            type V = Eight;
            const LANES: usize = LANES;
            const LANE_PRODUCTS: bool = true;
            #[inline(always)]
            unsafe fn splat(x: f32) -> Eight {
                unsafe {
                    [vdupq_n_f32(x); 2]
                }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Eight {
                unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
            }
            #[inline(always)]
            unsafe fn load_n(p: *const f32, n: usize) -> Eight {
                unsafe {
                    if n == LANES {
                        return Self::load(p);
                    }
                    let mut t = [0f32; LANES];
                    // As bytes: `p` may have any alignment.
                    std::ptr::copy_nonoverlapping(p.cast::<u8>(), t.as_mut_ptr().cast(), 4 * n);
                    Self::load(t.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: Eight) {
                unsafe {
                    vst1q_f32(p, v[0]);
                    vst1q_f32(p.add(4), v[1]);
                }
            }
            #[inline(always)]
            unsafe fn store_n(p: *mut f32, n: usize, v: Eight) {
                unsafe {
                    if n == LANES {
                        return Self::store(p, v);
                    }
                    let mut t = [0f32; LANES];
                    Self::store(t.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(t.as_ptr().cast::<u8>(), p.cast(), 4 * n)
                }
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const bf16) -> Eight {
                unsafe {
                    let bits = vld1q_u16(p.cast());
                    [
                        vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(bits))),
                        vreinterpretq_f32_u32(vshll_high_n_u16::<16>(bits)),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn load_bf16_n(p: *const bf16, n: usize) -> Eight {
                unsafe {
                    if n == LANES {
                        return Self::load_bf16(p);
                    }
                    let mut t = [bf16::ZERO; LANES];
                    std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n);
                    Self::load_bf16(t.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store_bf16(p: *mut bf16, v: Eight) {
                unsafe { vst1q_u16(p.cast(), $round(v)) }
            }
            #[inline(always)]
            unsafe fn store_bf16_n(p: *mut bf16, n: usize, v: Eight) {
                unsafe {
                    if n == LANES {
                        return Self::store_bf16(p, v);
                    }
                    let mut t = [bf16::ZERO; LANES];
                    Self::store_bf16(t.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(t.as_ptr(), p, n)
                }
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const f16) -> Eight {
                unsafe {
                    widen_f16(vld1q_u16(p.cast()))
                }
            }
            #[inline(always)]
            unsafe fn load_f16_n(p: *const f16, n: usize) -> Eight {
                unsafe {
                    if n == LANES {
                        return Self::load_f16(p);
                    }
                    let mut t = [f16::ZERO; LANES];
                    std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n);
                    Self::load_f16(t.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store_f16(p: *mut f16, v: Eight) {
                unsafe { vst1q_u16(p.cast(), round_f16(v)) }
            }
            #[inline(always)]
            unsafe fn store_f16_n(p: *mut f16, n: usize, v: Eight) {
                unsafe {
                    if n == LANES {
                        return Self::store_f16(p, v);
                    }
                    let mut t = [f16::ZERO; LANES];
                    Self::store_f16(t.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(t.as_ptr(), p, n)
                }
            }
            #[inline(always)]
            unsafe fn add(a: Eight, b: Eight) -> Eight {
                unsafe {
                    zip(a, b, |a, b| vaddq_f32(a, b))
                }
            }
            #[inline(always)]
            unsafe fn sub(a: Eight, b: Eight) -> Eight {
                unsafe {
                    zip(a, b, |a, b| vsubq_f32(a, b))
                }
            }
            #[inline(always)]
            unsafe fn mul(a: Eight, b: Eight) -> Eight {
                unsafe {
                    zip(a, b, |a, b| vmulq_f32(a, b))
                }
            }
            #[inline(always)]
            unsafe fn div(a: Eight, b: Eight) -> Eight {
                unsafe {
                    zip(a, b, |a, b| vdivq_f32(a, b))
                }
            }
            #[inline(always)]
            unsafe fn recip(a: Eight) -> Eight {
                unsafe {
                        map(a, |a| vdivq_f32(vdupq_n_f32(1.0), a))
                }
            }
            #[inline(always)]
            unsafe fn fma(a: Eight, b: Eight, c: Eight) -> Eight {
                unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
            }
            #[inline(always)]
            unsafe fn fnma(a: Eight, b: Eight, c: Eight) -> Eight {
                unsafe { [vfmsq_f32(c[0], a[0], b[0]), vfmsq_f32(c[1], a[1], b[1])] }
            }
            #[inline(always)]
            unsafe fn min(a: Eight, b: Eight) -> Eight {
                unsafe {
                    zip(a, b, |a, b| vbslq_f32(vcltq_f32(a, b), a, b))
                }
            }
            #[inline(always)]
            unsafe fn max(a: Eight, b: Eight) -> Eight {
                unsafe {
                    zip(a, b, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b))
                }
            }
            #[inline(always)]
            unsafe fn abs(a: Eight) -> Eight {
                unsafe {
                    map(a, |a| vabsq_f32(a))
                }
            }
            #[inline(always)]
            unsafe fn select_gt(a: Eight, b: Eight, x: Eight, y: Eight) -> Eight {
                unsafe {
                    [
                        vbslq_f32(vcgtq_f32(a[0], b[0]), x[0], y[0]),
                        vbslq_f32(vcgtq_f32(a[1], b[1]), x[1], y[1]),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn round(a: Eight) -> Eight {
                unsafe {
                    map(a, |a| vrndnq_f32(a))
                }
            }
            #[inline(always)]
            unsafe fn scale_pow2(a: Eight, n: Eight) -> Eight {
                unsafe {
                    zip(a, n, |a, n| {
                        let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                        vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
                    })
                }
            }
            #[inline(always)]
            unsafe fn floor_parts(x: Eight) -> (Eight, Eight) {
                unsafe {
                    let x = map(x, |x| vmaxq_f32(x, vdupq_n_f32(-126.0)));
                    let n = map(x, |x| vrndmq_f32(x));
                    (zip(x, n, |x, n| vsubq_f32(x, n)), n)
                }
            }
            #[inline(always)]
            unsafe fn swap_pairs(a: Eight) -> Eight {
                unsafe {
                    map(a, |a| vrev64q_f32(a))
                }
            }
            #[inline(always)]
            unsafe fn negate_even(a: Eight) -> Eight {
                unsafe {
                    let signs = vreinterpretq_u32_u64(vdupq_n_u64(0x8000_0000));
                    map(a, |a| {
                        vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), signs))
                    })
                }
            }
            #[inline(always)]
            unsafe fn sum(a: Eight) -> f32 {
                unsafe {
                    vaddvq_f32(vaddq_f32(a[0], a[1]))
                }
            }
            #[inline(always)]
            unsafe fn max_lane(a: Eight) -> f32 {
                unsafe {
                    vmaxnmvq_f32(vmaxnmq_f32(a[0], a[1]))
                }
            }
            #[inline(always)]
            unsafe fn add_products<const ROWS: usize, const NV: usize>(
                sums: &mut [[Eight; NV]; ROWS],
                a: *const f32,
                b: [Eight; NV],
            ) {
                unsafe {
                    let a = load_first::<ROWS>(a);
                    for i in 0..ROWS {
                        for j in 0..NV {
                            sums[i][j] = fma_lane(sums[i][j], a[i / 4], i, b[j]);
                        }
                    }
                }
            }
            #[inline(always)]
            unsafe fn add_steps<const ROWS: usize, const NV: usize>(
                sums: &mut [[Eight; NV]; ROWS],
                n: usize,
                a: *const f32,
                row_step: usize,
                b: *const f32,
            ) {
                unsafe {
                    let mut k = 0;
                    // Four numbers of each row at a time, where the sums and a step of B leave registers for them.
                    while 2 * NV * ROWS + ROWS + 2 * NV < 32 && k + 4 <= n {
                        let rows: [_; ROWS] =
                            std::array::from_fn(|i| vld1q_f32(a.add(i * row_step + k)));
                        for lane in 0..4 {
                            for j in 0..NV {
                                let b = Self::load(b.add(((k + lane) * NV + j) * LANES));
                                for i in 0..ROWS {
                                    sums[i][j] = fma_lane(sums[i][j], rows[i], lane, b);
                                }
                            }
                        }
                        k += 4;
                    }
                    while k < n {
                        let b: [Eight; NV] =
                            std::array::from_fn(|j| Self::load(b.add((k * NV + j) * LANES)));
                        for i in 0..ROWS {
                            let a = vdupq_n_f32(*a.add(i * row_step + k));
                            for j in 0..NV {
                                sums[i][j] = fma_lane(sums[i][j], a, 0, b[j]);
                            }
                        }
                        k += 1;
                    }
                }
            }
            $($groups)*
        }
    };
}
neon!(Neon, round_bf16 {});
pub(super) use neon;
