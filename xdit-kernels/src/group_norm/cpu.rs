//! Two passes: sums of fixed chunks of pixels, then normalisation.

use super::parameters::{OP, Parameters};
use crate::{
    Result, Tensor, View, ViewMut,
    activation::Activation,
    dtype::by_float,
    layout,
    numbers::DeviceNumbers,
    parallel::for_each_index_alone,
    rows::Floats,
    simd::{Lane, Shared, Simd, tiered},
    vector::filled,
};
use rayon::prelude::*;

/// Pixels of one f32 sum.
const RUN: usize = 64;
/// Elements that one task of either pass aims at. Fixed, so that sums do not depend on the pool.
const TASK: usize = 1 << 15;

/// y = (x − mean)·scale + bias, one of each a channel, padded with zeros to whole vectors.
struct ChannelAffine {
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
    /// Row, column and number of pixels for the part of each row that lies in `from..to`.
    #[inline(always)]
    fn rows(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<T> {
        let w = self.w;
        let (mut row, mut column, mut left) = (from / w, from % w, to - from);
        std::iter::from_fn(move || {
            let count = left.min(w - column);
            let part = (row, column, count);
            (row, column, left) = (row + 1, 0, left - count);
            (count > 0).then_some(part)
        })
    }
}

/// Fixed chunks of one picture's pixels.
struct Chunks<T> {
    x: *const T,
    /// Of pictures, rows and columns.
    strides: [usize; 3],
    w: usize,
    c: usize,
    pixels: usize,
    per_task: usize,
}

// SAFETY: the pointer is of a View that outlives the call; it is only read through.
unsafe impl<T> Sync for Chunks<T> {}

impl<T: Lane> Chunks<T> {
    /// Of `x`; `gapless` where rows may be counted as one.
    fn new(x: View<'_>, gapless: bool) -> Self {
        let [h, w, c] = [1, 2, 3].map(|d| x.dim(d));
        let pixels = h * w;
        Self {
            x: x.ptr().cast(),
            strides: [0, 1, 2].map(|d| x.strides()[d]),
            w: if gapless { pixels } else { w },
            c,
            pixels,
            per_task: (TASK / c)
                .next_multiple_of(RUN)
                .clamp(RUN, pixels.next_multiple_of(RUN)),
        }
    }

    fn count(&self) -> usize {
        self.pixels.div_ceil(self.per_task)
    }

    fn chunk(&self, picture: usize, task: usize) -> Pixels<T> {
        Pixels {
            // A picture's start is inside the view.
            x: self.x.wrapping_add(picture * self.strides[0]),
            strides: [self.strides[1], self.strides[2]],
            w: self.w,
            c: self.c,
            from: task * self.per_task,
            to: self.pixels.min((task + 1) * self.per_task),
        }
    }
}

/// Whether rows follow one another without a gap.
fn gapless(w: usize, strides: &[usize]) -> bool {
    strides[1] == w * strides[2]
}

/// A copy, if the channels are not adjacent.
fn adjacent(x: View<'_>) -> Result<Option<Tensor>> {
    (x.strides()[3] != 1)
        .then(|| layout::contiguous(x))
        .transpose()
}

/// Writes Σx and Σx² of each group of each picture of `x` to `to`, which has room for them and is zeros.
pub(super) fn sums(x: View<'_>, groups: usize, to: &mut [f64]) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let copy = adjacent(x)?;
    let x = copy.as_ref().map_or(x, Tensor::view);
    by_float!(OP, x.dtype(), T => sums_of::<T>(x, groups, to))
}

fn sums_of<T: Lane>(x: View<'_>, groups: usize, to: &mut [f64]) -> Result<()> {
    let tier = x.device().tier();
    let chunks = Chunks::<T>::new(x, gapless(x.dim(2), x.strides()));
    let (tasks, c) = (chunks.count(), chunks.c);
    // A task sums 64 pixels at least, so the numbers are fewer than twice x's.
    let mut partial = filled(OP, 0f64, x.dim(0) * tasks * 2 * c)?;
    partial
        .par_chunks_mut(2 * c)
        .enumerate()
        .for_each(|(i, sums)| {
            // SAFETY: the chunk's pixels are inside the picture and `sums` has two numbers a channel.
            unsafe { sum_pixels(tier, chunks.chunk(i / tasks, i % tasks), sums) }
        });
    let in_group = c / groups;
    let group = |picture: &[f64], g: usize| {
        let (mut sum, mut square) = (0.0, 0.0);
        for chunk in picture.chunks(2 * c) {
            for ch in g * in_group..(g + 1) * in_group {
                sum += chunk[ch];
                square += chunk[c + ch];
            }
        }
        [sum, square]
    };
    let (to, _) = to.as_chunks_mut::<2>();
    for (picture, to) in partial.chunks(tasks * 2 * c).zip(to.chunks_mut(groups)) {
        for (g, to) in to.iter_mut().enumerate() {
            *to = group(picture, g);
        }
    }
    Ok(())
}

/// Brings `x` to `out`; `numbers` are its [`sums`] over `pixels` pixels.
pub(super) fn run(
    x: View<'_>,
    numbers: &DeviceNumbers,
    pixels: f64,
    parameters: &Parameters<'_>,
    out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let (sums, _) = numbers.on_cpu().as_chunks::<2>();
    let copy = adjacent(x)?;
    let x = copy.as_ref().map_or(x, Tensor::view);
    let c = x.dim(3);
    let weight = Floats::new(OP, parameters.weight, &[c])?;
    let bias = Floats::new(OP, parameters.bias, &[c])?;
    let affine = sums
        .chunks(parameters.groups)
        .map(|sums| affine(sums, pixels, (&weight, &bias), parameters))
        .collect::<Result<Vec<ChannelAffine>>>()?;
    by_float!(OP, x.dtype(), T => typed::<T>(x, &affine, out));
    Ok(())
}

fn typed<T: Lane>(x: View<'_>, affine: &[ChannelAffine], mut out: ViewMut<'_>) {
    let w = x.dim(2);
    let [ob, oy, ox] = [0, 1, 2].map(|d| out.strides()[d]);
    let tier = x.device().tier();
    let dst = Shared(out.ptr().cast::<T>());
    let chunks = Chunks::<T>::new(x, gapless(w, x.strides()) && gapless(w, out.strides()));
    let tasks = chunks.count();
    for_each_index_alone(x.dim(0) * tasks, &|i| {
        let out = dst.ptr().wrapping_add(i / tasks * ob);
        let chunk = chunks.chunk(i / tasks, i % tasks);
        // SAFETY: the chunk's pixels are inside both pictures; chunks are disjoint, and `out` is exclusively borrowed.
        unsafe { normalise(tier, chunk, &affine[i / tasks], out, [oy, ox]) }
    });
}

/// Each channel's mean, scale and bias from each group's Σx and Σx² over `pixels` pixels (in f64: their difference loses
/// nothing that f32 inputs hold unless the mean is 10⁴ deviations away).
fn affine(
    sums: &[[f64; 2]],
    pixels: f64,
    (weight, bias): (&[f32], &[f32]),
    p: &Parameters<'_>,
) -> Result<ChannelAffine> {
    let c = weight.len();
    let in_group = c / p.groups;
    let padded = c.next_multiple_of(16);
    let mut out = ChannelAffine {
        mean: filled(OP, 0.0, padded)?,
        scale: filled(OP, 0.0, padded)?,
        bias: filled(OP, 0.0, padded)?,
        silu: p.silu,
    };
    out.bias[..c].copy_from_slice(bias);
    let n = pixels * in_group as f64;
    for (g, [sum, square]) in sums.iter().enumerate() {
        let mean = sum / n;
        let variance = (square / n - mean * mean).max(0.0);
        let scale = 1.0 / (variance + f64::from(p.eps)).sqrt();
        let channels = g * in_group..(g + 1) * in_group;
        out.mean[channels.clone()].fill(mean as f32);
        let scales = out.scale[channels.clone()].iter_mut();
        for (out, weight) in scales.zip(&weight[channels]) {
            *out = (scale * f64::from(*weight)) as f32;
        }
    }
    Ok(out)
}

/// Adds each channel's Σx to `sums[..c]`, Σx² to `sums[c..]`.
///
/// A run of pixels is summed in f32 about its first pixel, so that a large mean costs no digits. Pixels are read as they
/// lie in memory, four at a time; the channels' sums wait in the first-level cache. No closures here: they would not have
/// the tier's instructions.
#[inline(always)]
unsafe fn sum<S: Simd, T: Lane>(p: Pixels<T>, sums: &mut [f64]) {
    let padded = p.c.next_multiple_of(S::LANES);
    let mut run = vec![0f32; 3 * padded];
    let (shift, acc) = run.split_at_mut(padded);
    let (one, two) = acc.split_at_mut(padded);
    for from in (p.from..p.to).step_by(RUN) {
        let to = p.to.min(from + RUN);
        let at = |row: usize, column: usize| {
            p.x.wrapping_add(row * p.strides[0] + column * p.strides[1])
        };
        let first = at(from / p.w, from % p.w);
        one.fill(0.0);
        two.fill(0.0);
        // SAFETY: the pixels are inside the picture; the run's vectors are padded to whole ones.
        unsafe {
            for c0 in (0..p.c).step_by(S::LANES) {
                let n = S::LANES.min(p.c - c0);
                S::store(shift.as_mut_ptr().add(c0), T::load_n::<S>(first.add(c0), n));
            }
            let run = [shift.as_mut_ptr(), one.as_mut_ptr(), two.as_mut_ptr()];
            for (row, column, count) in p.rows(from, to) {
                let mut pixel = 0;
                while pixel + 4 <= count {
                    add_pixels::<S, T, 4>(at(row, column + pixel), p.strides[1], p.c, run);
                    pixel += 4;
                }
                while pixel < count {
                    add_pixels::<S, T, 1>(at(row, column + pixel), p.strides[1], p.c, run);
                    pixel += 1;
                }
            }
        }
        let count = (to - from) as f64;
        let (sum, square) = sums.split_at_mut(p.c);
        for (((sum, square), &s), (&one, &two)) in
            (sum.iter_mut().zip(square).zip(&*shift)).zip(one.iter().zip(&*two))
        {
            let [s, one, two] = [s, one, two].map(f64::from);
            *sum += one + count * s;
            *square += two + 2.0 * s * one + count * s * s;
        }
    }
}

/// Adds N pixels, `stride` apart from `x` on, to the run's sums: `run` is its shift, Σ(x − shift), Σ(x − shift)².
///
/// # Safety
/// The pixels have `c` channels; `run` has room for them in whole vectors.
#[inline(always)]
unsafe fn add_pixels<S: Simd, T: Lane, const N: usize>(
    x: *const T,
    stride: usize,
    c: usize,
    [shift, one, two]: [*mut f32; 3],
) {
    let mut c0 = 0;
    while c0 < c {
        let n = S::LANES.min(c - c0);
        // SAFETY: the caller's promise. Lanes beyond the channels hold 0 − 0.
        unsafe {
            let (s, one, two) = (S::load(shift.add(c0)), one.add(c0), two.add(c0));
            let (mut sum, mut square) = (S::load(one), S::load(two));
            for i in 0..N {
                let x = x.add(i * stride + c0);
                let d = S::sub(load::<S, T>(x, n), s);
                sum = S::add(sum, d);
                square = S::fma(d, d, square);
            }
            S::store(one, sum);
            S::store(two, square);
        }
        c0 += S::LANES;
    }
}

/// # Safety
/// `n` elements at `p`, at most LANES.
#[inline(always)]
unsafe fn load<S: Simd, T: Lane>(p: *const T, n: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        if n == S::LANES {
            T::load::<S>(p)
        } else {
            T::load_n::<S>(p, n)
        }
    }
}

#[inline(always)]
unsafe fn apply<S: Simd, T: Lane>(
    p: Pixels<T>,
    affine: &ChannelAffine,
    out: *mut T,
    strides: [usize; 2],
) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if affine.silu {
            apply_then::<S, T, true>(p, affine, out, strides);
        } else {
            apply_then::<S, T, false>(p, affine, out, strides);
        }
    }
}

#[inline(always)]
unsafe fn apply_then<S: Simd, T: Lane, const SILU: bool>(
    p: Pixels<T>,
    affine: &ChannelAffine,
    out: *mut T,
    strides: [usize; 2],
) {
    let [mean, scale, bias] = [&affine.mean, &affine.scale, &affine.bias].map(|v| v.as_ptr());
    for (row, column, count) in p.rows(p.from, p.to) {
        for pixel in column..column + count {
            let from = p.x.wrapping_add(row * p.strides[0] + pixel * p.strides[1]);
            let to = out.wrapping_add(row * strides[0] + pixel * strides[1]);
            let mut c0 = 0;
            while c0 < p.c {
                let n = (p.c - c0).min(S::LANES);
                // SAFETY: the pixel is inside both pictures and has n channels from c0; the affine vectors are padded to
                // whole vectors.
                unsafe {
                    let (from, to) = (from.add(c0), to.add(c0));
                    let centred = S::sub(load::<S, T>(from, n), S::load(mean.add(c0)));
                    let mut y = S::fma(centred, S::load(scale.add(c0)), S::load(bias.add(c0)));
                    if SILU {
                        y = Activation::Silu.apply::<S, T>(y);
                    }
                    if n == S::LANES {
                        T::store::<S>(to, y);
                    } else {
                        T::store_n::<S>(to, n, y);
                    }
                }
                c0 += S::LANES;
            }
        }
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
    fn normalise[T: Lane][T](p: Pixels<T>, affine: &ChannelAffine, out: *mut T, strides: [usize; 2]) = apply
);
