//! Two passes: sums of fixed chunks of pixels, then normalisation.

use crate::{
    DType, View, ViewMut,
    activation::Activation,
    simd::{Lane, Shared, Simd, tiered},
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

/// Pixels `from..to` of one picture, counted in raster order. Where rows follow one another without a gap, the picture is
/// described as one long row.
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
    /// Calls `f(row, column, count)` for the part of each row that lies in `from..to`.
    #[inline(always)]
    fn rows(&self, from: usize, to: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (mut row, mut column, mut left) = (from / self.w, from % self.w, to - from);
        while left > 0 {
            let count = left.min(self.w - column);
            f(row, column, count);
            (row, column, left) = (row + 1, 0, left - count);
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
    let gapless = xy == w * xx && oy == w * ox;
    let w = if gapless { pixels } else { w };
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

/// Adds each channel's Σx to `sums[..c]`, Σx² to `sums[c..]`.
#[inline(always)]
unsafe fn sum<S: Simd, T: Lane>(p: Pixels<T>, sums: &mut [f64]) {
    for from in (p.from..p.to).step_by(RUN) {
        let to = p.to.min(from + RUN);
        let mut c0 = 0;
        while c0 < p.c {
            let vectors = (p.c - c0) / S::LANES;
            // SAFETY: the pixels are inside the picture, and the vectors (or the rest) inside its channels. Every number
            // of independent sums is about eight, to hide the additions' latency.
            c0 += unsafe {
                match vectors {
                    0 => sum_run::<S, T, 1, 1, true>(p, from, to, c0, sums),
                    1 => sum_run::<S, T, 1, 4, false>(p, from, to, c0, sums),
                    2 | 3 => sum_run::<S, T, 2, 2, false>(p, from, to, c0, sums),
                    _ => sum_run::<S, T, 4, 1, false>(p, from, to, c0, sums),
                }
            };
        }
    }
}

/// One run of pixels for V vectors of channels (or, with REST, the channels that do not fill one), summed in f32 about its
/// first pixel, so that a large mean costs no digits. P sums take turns. Returns the number of channels.
#[inline(always)]
unsafe fn sum_run<S: Simd, T: Lane, const V: usize, const P: usize, const REST: bool>(
    p: Pixels<T>,
    from: usize,
    to: usize,
    c0: usize,
    sums: &mut [f64],
) -> usize {
    let n = if REST { p.c - c0 } else { V * S::LANES };
    // SAFETY: the caller's promise.
    let load = |at: *const T, v: usize| unsafe {
        if REST {
            T::load_n::<S>(at, n)
        } else {
            T::load::<S>(at.add(v * S::LANES))
        }
    };
    let at = |row: usize, column: usize| {
        p.x.wrapping_add(row * p.strides[0] + column * p.strides[1] + c0)
    };
    let first = at(from / p.w, from % p.w);
    // SAFETY: arithmetic on lanes under the tier's features.
    unsafe {
        let shift: [S::V; V] = std::array::from_fn(|v| load(first, v));
        let mut acc = [[[S::zero(); 2]; V]; P];
        p.rows(from, to, |row, column, count| {
            let start = at(row, column);
            let add = |acc: &mut [[S::V; 2]; V], pixel: usize| {
                for v in 0..V {
                    let d = S::sub(load(start.wrapping_add(pixel * p.strides[1]), v), shift[v]);
                    acc[v] = [S::add(acc[v][0], d), S::fma(d, d, acc[v][1])];
                }
            };
            let mut pixel = 0;
            while pixel + P <= count {
                for (i, acc) in acc.iter_mut().enumerate() {
                    add(acc, pixel + i);
                }
                pixel += P;
            }
            while pixel < count {
                add(&mut acc[0], pixel);
                pixel += 1;
            }
        });
        let count = (to - from) as f64;
        for v in 0..V {
            let mut lanes = [[0f32; 16]; 3];
            let total = |k: usize| {
                acc[1..]
                    .iter()
                    .fold(acc[0][v][k], |t, a| S::add(t, a[v][k]))
            };
            for (to, x) in lanes.iter_mut().zip([shift[v], total(0), total(1)]) {
                S::store(to.as_mut_ptr(), x);
            }
            let c0 = c0 + v * S::LANES;
            for i in 0..n.min(S::LANES) {
                let [s, one, two] = [0, 1, 2].map(|k| f64::from(lanes[k][i]));
                sums[c0 + i] += one + count * s;
                sums[p.c + c0 + i] += two + 2.0 * s * one + count * s * s;
            }
        }
    }
    n
}

#[inline(always)]
unsafe fn apply<S: Simd, T: Lane>(p: Pixels<T>, affine: &Affine, out: *mut T, strides: [usize; 2]) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if affine.silu {
            apply_then::<S, T>(p, affine, out, strides, |y| Activation::Silu.apply::<S>(y));
        } else {
            apply_then::<S, T>(p, affine, out, strides, |y| y);
        }
    }
}

#[inline(always)]
unsafe fn apply_then<S: Simd, T: Lane>(
    p: Pixels<T>,
    affine: &Affine,
    out: *mut T,
    strides: [usize; 2],
    then: impl Fn(S::V) -> S::V,
) {
    p.rows(p.from, p.to, |row, column, count| {
        let from = p.x.wrapping_add(row * p.strides[0] + column * p.strides[1]);
        let to = out.wrapping_add(row * strides[0] + column * strides[1]);
        for pixel in 0..count {
            let (from, to) = (
                from.wrapping_add(pixel * p.strides[1]),
                to.wrapping_add(pixel * strides[1]),
            );
            let mut c0 = 0;
            while c0 < p.c {
                let n = (p.c - c0).min(S::LANES);
                // SAFETY: the pixel is inside both pictures and has n channels from c0; the affine vectors are padded to
                // whole vectors.
                unsafe {
                    let (from, to) = (from.add(c0), to.add(c0));
                    let x = if n == S::LANES {
                        T::load::<S>(from)
                    } else {
                        T::load_n::<S>(from, n)
                    };
                    let centred = S::sub(x, S::load(affine.mean.as_ptr().add(c0)));
                    let scale = S::load(affine.scale.as_ptr().add(c0));
                    let y = then(S::fma(
                        centred,
                        scale,
                        S::load(affine.bias.as_ptr().add(c0)),
                    ));
                    if n == S::LANES {
                        T::store::<S>(to, y);
                    } else {
                        T::store_n::<S>(to, n, y);
                    }
                }
                c0 += n;
            }
        }
    });
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
