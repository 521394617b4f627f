//! Winograd's transforms of one tile and one vector of channels: from inputs to V, and from M to outputs.

#![allow(
    clippy::needless_range_loop,
    reason = "indices of register arrays: iterators over them end up in memory"
)]

use super::{
    call::ConvCall,
    pack::{A, B},
};
use crate::simd::{Lane, Simd};

/// Bᵀ·d. For the points ±a the polynomial is x(x ± a)(x² − b²).
#[inline(always)]
unsafe fn input_transform<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
    const A2: f32 = A * A;
    const B2: f32 = B * B;
    // SAFETY: arithmetic on lanes under the tier's features.
    unsafe {
        let k = |x| S::splat(x);
        let (even_a, odd_a) = (S::fnma(d[2], k(B2), d[4]), S::fnma(d[1], k(B2), d[3]));
        let (even_b, odd_b) = (S::fnma(d[2], k(A2), d[4]), S::fnma(d[1], k(A2), d[3]));
        [
            S::fma(d[0], k(A2 * B2), S::fnma(d[2], k(A2 + B2), d[4])),
            S::fma(odd_a, k(A), even_a),
            S::fnma(odd_a, k(A), even_a),
            S::fma(odd_b, k(B), even_b),
            S::fnma(odd_b, k(B), even_b),
            S::fma(d[1], k(A2 * B2), S::fnma(d[3], k(A2 + B2), d[5])),
        ]
    }
}

/// Aᵀ·m: row i holds the points' i-th powers, and ∞ adds to the last.
#[inline(always)]
unsafe fn output_transform<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: as above.
    unsafe {
        let k = |x| S::splat(x);
        let (even_a, odd_a) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (even_b, odd_b) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(S::add(m[0], even_a), even_b),
            S::fma(odd_a, k(A), S::mul(odd_b, k(B))),
            S::fma(even_a, k(A * A), S::mul(even_b, k(B * B))),
            S::fma(odd_a, k(A * A * A), S::fma(odd_b, k(B * B * B), m[5])),
        ]
    }
}

/// Transforms the 6×6 inputs of the tile whose first output is (y, x). In `v` the blocks of channels are `block_step` apart,
/// and the 36 results of a block `xi_step`. `zeros` is a pixel of the padding.
#[inline(always)]
pub(super) unsafe fn transform_in<S: Simd, T: Lane>(
    call: &ConvCall<'_, T>,
    [batch, y, x]: [usize; 3],
    zeros: *const T,
    v: *mut f32,
    block_step: usize,
    xi_step: usize,
) {
    let mut pixels = [[zeros; 6]; 6];
    let inside = match (call.pixel(batch, y, x), call.pixel(batch, y + 5, x + 5)) {
        (Some(first), Some(_)) if call.shift == 0 => Some(first),
        _ => {
            for i in 0..6 {
                for j in 0..6 {
                    if let Some(p) = call.pixel(batch, y + i, x + j) {
                        pixels[i][j] = p;
                    }
                }
            }
            None
        }
    };
    let [_, sy, sx] = call.x_strides;
    for block in 0..call.ic.div_ceil(S::LANES) {
        // Opaque, or the compiler would keep 72 pointers and step each of them.
        let block = std::hint::black_box(block);
        let (from, to) = (block * S::LANES, v.wrapping_add(block * block_step));
        let n = (call.ic - from).min(S::LANES);
        // SAFETY: each pixel reaches ic channels, n of them from the block's start; the results lie in V.
        unsafe {
            match inside {
                Some(first) if n == S::LANES => {
                    let first = first.add(from);
                    transform_block::<S>(
                        |i, j| T::load::<S>(first.add(i * sy + j * sx)),
                        to,
                        xi_step,
                    );
                }
                _ if n == S::LANES => {
                    transform_block::<S>(|i, j| T::load::<S>(pixels[i][j].add(from)), to, xi_step);
                }
                Some(first) => {
                    let first = first.add(from);
                    transform_block::<S>(
                        |i, j| T::load_n::<S>(first.add(i * sy + j * sx), n),
                        to,
                        xi_step,
                    );
                }
                None => {
                    transform_block::<S>(
                        |i, j| T::load_n::<S>(pixels[i][j].add(from), n),
                        to,
                        xi_step,
                    );
                }
            }
        }
    }
}

/// Bᵀ·d·B of one vector of channels, to `to`.
#[inline(always)]
unsafe fn transform_block<S: Simd>(
    load: impl Fn(usize, usize) -> S::V,
    to: *mut f32,
    xi_step: usize,
) {
    // SAFETY: the caller's promise: 36 vectors lie `xi_step` apart.
    unsafe {
        let mut d = [[S::zero(); 6]; 6];
        for i in 0..6 {
            d[i] = input_transform::<S>(std::array::from_fn(|j| load(i, j)));
        }
        for j in 0..6 {
            let column =
                input_transform::<S>([d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]]);
            for i in 0..6 {
                S::store(to.add((i * 6 + j) * xi_step), column[i]);
            }
        }
    }
}

/// Transforms 36 sums, which are `step` apart, to the 4×4 outputs of a tile for one vector of channels, and stores them.
#[inline(always)]
pub(super) unsafe fn transform_out<S: Simd, T: Lane>(
    call: &ConvCall<'_, T>,
    [batch, y, x]: [usize; 3],
    vector: usize,
    m: *const f32,
    step: usize,
) {
    // SAFETY: the sums lie in M; only pixels inside the output are stored.
    unsafe {
        let mut r = [[S::zero(); 6]; 4];
        for j in 0..6 {
            let column = std::array::from_fn(|i| S::load(m.add((i * 6 + j) * step)));
            let column = output_transform::<S>(column);
            for i in 0..4 {
                r[i][j] = column[i];
            }
        }
        let (bias, n) = call.bias::<S>(vector);
        let corner = call.place(batch, y, x, vector, S::LANES);
        let (rows, columns) = ((call.oh - y).min(4), (call.ow - x).min(4));
        for i in 0..4 {
            let row = output_transform::<S>(r[i]);
            for j in 0..4 {
                if i < rows && j < columns {
                    let at = [
                        corner[0] + i * call.out_strides[1] + j * call.out_strides[2],
                        corner[1] + i * call.residual_strides[1] + j * call.residual_strides[2],
                    ];
                    call.store::<S>(at, n, bias, row[j]);
                }
            }
        }
    }
}
