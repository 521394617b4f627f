//! Plain Rust over arrays of eight: the compiler turns it into SSE2, NEON or whatever the target has.

use super::lane::Simd;
use half::{bf16, f16};

/// No processor feature beyond the target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;
type V = [f32; LANES];

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    a.map(f)
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// One rounding where the target's baseline has the instruction; a call into libm would be far slower.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each reads or writes n lanes under the trait's contract"
)]
impl Simd for Portable {
    type V = V;
    const LANES: usize = LANES;
    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        unsafe { std::array::from_fn(|i| p.add(i).read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> V {
        unsafe {
            std::array::from_fn(|i| {
                if i < n {
                    p.add(i).read_unaligned()
                } else {
                    0.0
                }
            })
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        unsafe {
            for (i, x) in v.into_iter().enumerate() {
                p.add(i).write_unaligned(x);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, n: usize, v: V) {
        unsafe {
            for (i, x) in v.into_iter().enumerate().take(n) {
                p.add(i).write_unaligned(x);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> V {
        unsafe { std::array::from_fn(|i| p.add(i).read_unaligned().to_f32()) }
    }
    #[inline(always)]
    unsafe fn load_bf16_n(p: *const bf16, n: usize) -> V {
        unsafe {
            std::array::from_fn(|i| {
                if i < n {
                    p.add(i).read_unaligned().to_f32()
                } else {
                    0.0
                }
            })
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut bf16, v: V) {
        unsafe {
            for (i, x) in v.into_iter().enumerate() {
                p.add(i).write_unaligned(bf16::from_f32(x));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(p: *mut bf16, n: usize, v: V) {
        unsafe {
            for (i, x) in v.into_iter().enumerate().take(n) {
                p.add(i).write_unaligned(bf16::from_f32(x));
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> V {
        unsafe { std::array::from_fn(|i| p.add(i).read_unaligned().to_f32()) }
    }
    #[inline(always)]
    unsafe fn load_f16_n(p: *const f16, n: usize) -> V {
        unsafe {
            std::array::from_fn(|i| {
                if i < n {
                    p.add(i).read_unaligned().to_f32()
                } else {
                    0.0
                }
            })
        }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut f16, v: V) {
        unsafe {
            for (i, x) in v.into_iter().enumerate() {
                p.add(i).write_unaligned(f16::from_f32(x));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_f16_n(p: *mut f16, n: usize, v: V) {
        unsafe {
            for (i, x) in v.into_iter().enumerate().take(n) {
                p.add(i).write_unaligned(f16::from_f32(x));
            }
        }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn recip(a: V) -> V {
        map(a, |x| 1.0 / x)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| mul_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn fnma(a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| mul_add(-a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn abs(a: V) -> V {
        map(a, f32::abs)
    }
    #[inline(always)]
    unsafe fn select_gt(a: V, b: V, x: V, y: V) -> V {
        std::array::from_fn(|i| if a[i] > b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        // Adding 1.5 * 2^23 leaves no fraction bits; a call to roundeven would not vectorise.
        map(a, |x| (x + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    unsafe fn scale_pow2(a: V, n: V) -> V {
        zip(a, n, |x, n| {
            x * f32::from_bits(((n as i32 + 127) as u32) << 23)
        })
    }
    #[inline(always)]
    unsafe fn swap_pairs(a: V) -> V {
        std::array::from_fn(|i| a[i ^ 1])
    }
    #[inline(always)]
    unsafe fn negate_even(a: V) -> V {
        std::array::from_fn(|i| if i % 2 == 0 { -a[i] } else { a[i] })
    }
    #[inline(always)]
    unsafe fn sum(a: V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn max_lane(a: V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
