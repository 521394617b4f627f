//! Two passes: sums of fixed chunks of pixels, then normalisation.

use crate::{
    DType, View, ViewMut,
    simd::{Lane, Shared, Simd, math, tiered},
};
use half::{bf16, f16};
use rayon::prelude::*;

/// Pixels of one f32 sum.
const RUN: usize = 64;
/// Elements that one task of either pass aims at. Fixed, so that sums do not depend on the pool.
const TASK: usize = 1 << 15;

/// Everything but the picture. `weight` and `bias` have one element a channel.
pub(super) struct Parameters {
    pub(super) groups: usize,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) eps: f64,
    pub(super) silu: bool,
}

/// y = (x − mean)·scale + bias, one of each a channel, padded with zeros to whole vectors.
struct Affine {
    mean: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    silu: bool,
}

/// Pixels `from..to` of one picture, counted in raster order.
#[derive(Clone, Copy)]
struct Pixels<T> {
    x: *const T,
    strides: [usize; 2],
    w: usize,
    c: usize,
    from: usize,
    to: usize,
}

impl<T> Pixels<T> {
    /// # Safety
    /// The pixel is inside the picture.
    #[inline(always)]
    unsafe fn at(&self, pixel: usize) -> *const T {
        // SAFETY: the caller's promise: row and column are inside.
        unsafe {
            self.x
                .add(pixel / self.w * self.strides[0] + pixel % self.w * self.strides[1])
        }
    }
}

pub(super) fn run(x: View<'_>, parameters: &Parameters, out: ViewMut<'_>) {
    match x.dtype() {
        DType::F32 => typed::<f32>(x, parameters, out),
        DType::BF16 => typed::<bf16>(x, parameters, out),
        DType::F16 => typed::<f16>(x, parameters, out),
    }
}

fn typed<T: Lane>(x: View<'_>, parameters: &Parameters, mut out: ViewMut<'_>) {
    let [b, h, w, c] = [0, 1, 2, 3].map(|d| x.dim(d));
    let [xb, xy, xx] = [0, 1, 2].map(|d| x.strides()[d]);
    let [ob, oy, ox] = [0, 1, 2].map(|d| out.strides()[d]);
    let tier = x.device().tier();
    let (src, dst) = (
        Shared(x.ptr().cast::<T>().cast_mut()),
        Shared(out.ptr().cast::<T>()),
    );
    let pixels = h * w;
    let per_task = (TASK / c)
        .next_multiple_of(RUN)
        .clamp(RUN, pixels.next_multiple_of(RUN));
    let tasks = pixels.div_ceil(per_task);
    let chunk = |batch: usize, task: usize| Pixels {
        // A picture's start is inside the view.
        x: src.ptr().wrapping_add(batch * xb).cast_const(),
        strides: [xy, xx],
        w,
        c,
        from: task * per_task,
        to: pixels.min((task + 1) * per_task),
    };
    let mut partial = vec![0f64; b * tasks * 2 * c];
    partial
        .par_chunks_mut(2 * c)
        .enumerate()
        .for_each(|(i, sums)| {
            // SAFETY: the chunk's pixels are inside the picture and `sums` has two numbers a channel.
            unsafe { sum_pixels(tier, chunk(i / tasks, i % tasks), sums) }
        });
    let affine: Vec<Affine> = partial
        .chunks(tasks * 2 * c)
        .map(|sums| affine(sums, pixels, c, parameters))
        .collect();
    (0..b * tasks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|i| {
            let out = dst.ptr().wrapping_add(i / tasks * ob);
            // SAFETY: the chunk's pixels are inside both pictures; chunks are disjoint, and `out` is exclusively borrowed.
            unsafe {
                normalise(
                    tier,
                    chunk(i / tasks, i % tasks),
                    &affine[i / tasks],
                    out,
                    [oy, ox],
                )
            }
        });
}

/// Statistics of each group from its chunks' Σx and Σx² (in f64: their difference loses nothing that f32 inputs hold
/// unless the mean is 10⁴ deviations away).
fn affine(sums: &[f64], pixels: usize, c: usize, p: &Parameters) -> Affine {
    let in_group = c / p.groups;
    let padded = c.next_multiple_of(16);
    let mut out = Affine {
        mean: vec![0.0; padded],
        scale: vec![0.0; padded],
        bias: vec![0.0; padded],
        silu: p.silu,
    };
    out.bias[..c].copy_from_slice(&p.bias);
    for g in 0..p.groups {
        let channels = g * in_group..(g + 1) * in_group;
        let (mut sum, mut square) = (0.0, 0.0);
        for chunk in sums.chunks(2 * c) {
            for ch in channels.clone() {
                sum += chunk[ch];
                square += chunk[c + ch];
            }
        }
        let n = (pixels * in_group) as f64;
        let mean = sum / n;
        let variance = (square / n - mean * mean).max(0.0);
        let scale = 1.0 / (variance + p.eps).sqrt();
        for ch in channels {
            out.mean[ch] = mean as f32;
            out.scale[ch] = (scale * f64::from(p.weight[ch])) as f32;
        }
    }
    out
}

/// Adds each channel's Σx to `sums[..c]`, Σx² to `sums[c..]`. A run of pixels is summed in f32 about its first pixel, so
/// that a large mean costs no digits.
#[inline(always)]
unsafe fn sum<S: Simd, T: Lane>(p: Pixels<T>, sums: &mut [f64]) {
    let mut c0 = 0;
    while c0 < p.c {
        let n = (p.c - c0).min(S::LANES);
        let mut from = p.from;
        while from < p.to {
            let to = p.to.min(from + RUN);
            // SAFETY: pixels are inside the picture and have n channels from c0; the arrays hold 16 >= LANES.
            unsafe {
                let load = |pixel: usize| {
                    let at = p.at(pixel).add(c0);
                    if n == S::LANES {
                        T::load::<S>(at)
                    } else {
                        T::load_n::<S>(at, n)
                    }
                };
                let shift = load(from);
                let (mut one, mut two) = (S::zero(), S::zero());
                for pixel in from..to {
                    let d = S::sub(load(pixel), shift);
                    one = S::add(one, d);
                    two = S::fma(d, d, two);
                }
                let mut lanes = [[0f32; 16]; 3];
                for (to, v) in lanes.iter_mut().zip([shift, one, two]) {
                    S::store(to.as_mut_ptr(), v);
                }
                let count = (to - from) as f64;
                for i in 0..n {
                    let [s, one, two] = [0, 1, 2].map(|k| f64::from(lanes[k][i]));
                    sums[c0 + i] += one + count * s;
                    sums[p.c + c0 + i] += two + 2.0 * s * one + count * s * s;
                }
            }
            from = to;
        }
        c0 += n;
    }
}

#[inline(always)]
unsafe fn apply<S: Simd, T: Lane>(p: Pixels<T>, affine: &Affine, out: *mut T, strides: [usize; 2]) {
    for pixel in p.from..p.to {
        let mut c0 = 0;
        while c0 < p.c {
            let n = (p.c - c0).min(S::LANES);
            // SAFETY: the pixel is inside both pictures and has n channels from c0; the affine vectors are padded to
            // whole vectors.
            unsafe {
                let from = p.at(pixel).add(c0);
                let to = out.add(pixel / p.w * strides[0] + pixel % p.w * strides[1] + c0);
                let x = if n == S::LANES {
                    T::load::<S>(from)
                } else {
                    T::load_n::<S>(from, n)
                };
                let centred = S::sub(x, S::load(affine.mean.as_ptr().add(c0)));
                let scale = S::load(affine.scale.as_ptr().add(c0));
                let mut y = S::fma(centred, scale, S::load(affine.bias.as_ptr().add(c0)));
                if affine.silu {
                    y = silu::<S>(y);
                }
                if n == S::LANES {
                    T::store::<S>(to, y);
                } else {
                    T::store_n::<S>(to, n, y);
                }
            }
            c0 += n;
        }
    }
}

/// x / (1 + e^−x)
#[inline(always)]
unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: arithmetic on lanes under the tier's features.
    unsafe {
        S::div(
            x,
            S::add(S::splat(1.0), math::exp::<S>(S::sub(S::zero(), x))),
        )
    }
}

tiered!(
    /// # Safety
    /// The pixels are inside their picture; `sums` has two numbers a channel.
    fn sum_pixels[T: Lane][T](p: Pixels<T>, sums: &mut [f64]) = sum
);
tiered!(
    /// # Safety
    /// The pixels are inside their picture and inside that at `out`, whose pixels no other task touches.
    fn normalise[T: Lane][T](p: Pixels<T>, affine: &Affine, out: *mut T, strides: [usize; 2]) = apply
);
