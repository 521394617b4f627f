//! Winograd F(4×4, 3×3): tiles of 6×6 inputs give 4×4 outputs, by 36 products a channel instead of 144.
//!
//! A task takes a block of tiles (in raster order): it transforms their inputs to V `[6·6][row group][ic block][MR][lane]`,
//! multiplies with the transformed weights, 36 small GEMMs a panel of output channels, into M `[tile][6·6][panel]`, and
//! transforms that back.

use super::{
    cpu::{Call, Walk, product},
    pack::{A, B, PANEL},
};
use crate::simd::{Lane, Simd, tiered};

/// Elements of scratch that a block aims at.
const SCRATCH: usize = 1 << 18;
/// Row groups of a block: at least so many, that the weights, read once a block, come from the cache more often than
/// from memory.
const MIN_GROUPS: usize = 2;
const MAX_GROUPS: usize = 8;

/// Rows of the micro-kernel by lanes.
const fn rows(lanes: usize) -> usize {
    if lanes == 16 { 14 } else { 6 }
}

/// Sizes of the blocks, fixed by the call's shapes alone.
pub(super) struct Plan {
    lanes: usize,
    /// Tiles in a block: a multiple of the micro-kernel's rows.
    block: usize,
    /// Tiles in a row and in a column of the output.
    nx: usize,
    ny: usize,
}

impl Plan {
    pub(super) fn new<T>(call: &Call<'_, T>) -> Self {
        let lanes = super::cpu::lanes(call.conv.device.tier());
        let per_group = 36 * rows(lanes) * (call.ic.next_multiple_of(lanes) + PANEL * lanes);
        Self {
            lanes,
            block: (SCRATCH / per_group).clamp(MIN_GROUPS, MAX_GROUPS) * rows(lanes),
            nx: call.ow.div_ceil(4),
            ny: call.oh.div_ceil(4),
        }
    }

    /// Blocks do not cross pictures of a batch: a picture's result is the same in any batch.
    fn blocks(&self) -> usize {
        (self.nx * self.ny).div_ceil(self.block)
    }

    pub(super) fn tasks<T>(&self, call: &Call<'_, T>) -> usize {
        call.batch * self.blocks()
    }

    fn v_len<T>(&self, call: &Call<'_, T>) -> usize {
        36 * self.block * call.ic.next_multiple_of(self.lanes)
    }

    pub(super) fn scratch_len<T>(&self, call: &Call<'_, T>) -> usize {
        self.v_len(call) + 36 * self.block * PANEL * self.lanes
    }
}

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

#[inline(always)]
unsafe fn tiles<S: Simd, T: Lane>(call: &Call<'_, T>, plan: &Plan, scratch: *mut f32, task: usize) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if S::LANES == 16 {
            tiles_of::<S, T, { rows(16) }>(call, plan, scratch, task);
        } else {
            tiles_of::<S, T, { rows(8) }>(call, plan, scratch, task);
        }
    }
}

#[inline(always)]
unsafe fn tiles_of<S: Simd, T: Lane, const MR: usize>(
    call: &Call<'_, T>,
    plan: &Plan,
    scratch: *mut f32,
    task: usize,
) {
    let (batch, first) = (task / plan.blocks(), task % plan.blocks() * plan.block);
    let count = plan.block.min(plan.nx * plan.ny - first);
    let groups = count.div_ceil(MR);
    let blocks = call.ic.div_ceil(S::LANES);
    // SAFETY: V and M lie one after another in the scratch, both sized for a full block of tiles.
    unsafe {
        let (v, m) = (scratch, scratch.add(plan.v_len(call)));
        let v_step = groups * blocks * MR * S::LANES;
        for t in 0..count {
            let (ty, tx) = ((first + t) / plan.nx, (first + t) % plan.nx);
            let at = ((t / MR) * blocks * MR + t % MR) * S::LANES;
            transform_in::<S, T>(
                call,
                [batch, ty * 4, tx * 4],
                v.add(at),
                MR * S::LANES,
                v_step,
            );
        }
        let walk = Walk {
            taps: &[0],
            blocks,
            step: MR * S::LANES,
            last: call.ic - (blocks - 1) * S::LANES,
        };
        let vectors = call.oc.div_ceil(S::LANES);
        for first_vector in (0..vectors).step_by(PANEL) {
            let u = call
                .conv
                .packed
                .ptr()
                .add(first_vector * S::LANES * 36 * call.ic);
            let wide = first_vector + PANEL <= vectors;
            for xi in 0..36 {
                for g in 0..groups {
                    let a = v.add(xi * v_step + g * blocks * MR * S::LANES);
                    if wide {
                        multiply::<S, MR, PANEL>(a, walk, u, call.ic, m, g, xi);
                    } else {
                        multiply::<S, MR, 1>(a, walk, u, call.ic, m, g, xi);
                    }
                }
            }
            let in_panel = if wide { PANEL } else { 1 };
            for t in 0..count {
                let (ty, tx) = ((first + t) / plan.nx, (first + t) % plan.nx);
                for j in 0..in_panel {
                    let from = m.add((t * 36 * in_panel + j) * S::LANES);
                    let at = [batch, ty * 4, tx * 4, first_vector + j];
                    transform_out::<S, T>(call, at, from, in_panel * S::LANES);
                }
            }
        }
    }
}

/// The 6×6 inputs of a tile whose first output is (y, x): channels block by block `block_step` apart, the 36
/// results `xi_step` apart.
#[inline(always)]
unsafe fn transform_in<S: Simd, T: Lane>(
    call: &Call<'_, T>,
    [batch, y, x]: [usize; 3],
    v: *mut f32,
    block_step: usize,
    xi_step: usize,
) {
    let mut pixels = [[None; 6]; 6];
    for (i, row) in pixels.iter_mut().enumerate() {
        for (j, pixel) in row.iter_mut().enumerate() {
            *pixel = call.pixel(batch, y + i, x + j);
        }
    }
    let mut block = 0;
    while block * S::LANES < call.ic {
        let n = (call.ic - block * S::LANES).min(S::LANES);
        // SAFETY: a pixel reaches ic channels, n of them from the block's start; the results lie in V.
        unsafe {
            let mut d = [[S::zero(); 6]; 6];
            for (d, row) in d.iter_mut().zip(pixels) {
                for (d, pixel) in d.iter_mut().zip(row) {
                    if let Some(p) = pixel {
                        let p = p.add(block * S::LANES);
                        *d = if n == S::LANES {
                            T::load::<S>(p)
                        } else {
                            T::load_n::<S>(p, n)
                        };
                    }
                }
                *d = input_transform::<S>(*d);
            }
            for j in 0..6 {
                let column = input_transform::<S>(d.map(|row| row[j]));
                for (i, c) in column.into_iter().enumerate() {
                    S::store(v.add((i * 6 + j) * xi_step + block * block_step), c);
                }
            }
        }
        block += 1;
    }
}

/// One product of MR tiles at point `xi` with a panel, to M.
#[inline(always)]
unsafe fn multiply<S: Simd, const MR: usize, const NV: usize>(
    a: *const f32,
    walk: Walk<'_>,
    u: *const f32,
    ic: usize,
    m: *mut f32,
    group: usize,
    xi: usize,
) {
    // SAFETY: the panel holds 36 matrices of ic rows of NV vectors; M has room for MR tiles a group.
    unsafe {
        let acc = product::<S, MR, NV>(a, walk, u.add(xi * ic * NV * S::LANES));
        for (i, acc) in acc.into_iter().enumerate() {
            let to = m.add(((group * MR + i) * 36 + xi) * NV * S::LANES);
            for (j, sum) in acc.into_iter().enumerate() {
                S::store(to.add(j * S::LANES), sum);
            }
        }
    }
}

/// The 4×4 outputs of a tile for one vector of channels; the 36 sums are `step` apart.
#[inline(always)]
unsafe fn transform_out<S: Simd, T: Lane>(
    call: &Call<'_, T>,
    [batch, y, x, vector]: [usize; 4],
    m: *const f32,
    step: usize,
) {
    // SAFETY: the sums lie in M; only pixels inside the output are stored.
    unsafe {
        let mut r = [[S::zero(); 6]; 4];
        for j in 0..6 {
            let column = std::array::from_fn(|i| S::load(m.add((i * 6 + j) * step)));
            for (r, c) in r.iter_mut().zip(output_transform::<S>(column)) {
                r[j] = c;
            }
        }
        for (i, r) in r.into_iter().enumerate().take(call.oh - y) {
            for (j, sum) in output_transform::<S>(r)
                .into_iter()
                .enumerate()
                .take(call.ow - x)
            {
                call.store::<S>(batch, y + i, x + j, vector, sum);
            }
        }
    }
}

tiered!(
    /// One block of tiles of the output.
    ///
    /// # Safety
    /// The call's pointers reach its shapes; `scratch` holds the plan's length and is this task's own; no other task has
    /// this index.
    pub(super) fn block[T: Lane][T](call: &Call<'_, T>, plan: &Plan, scratch: *mut f32, task: usize) = tiles
);
