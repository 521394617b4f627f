//! Winograd F(4×4, 3×3): tiles of 6×6 inputs give 4×4 outputs, by 36 products a channel instead of 144.
//!
//! A task takes a block of tiles (in raster order), in groups of MR, the rows of the micro-kernel: it transforms their
//! inputs to V `[group][6·6][ic block][MR][lane]`, multiplies each of the 36 matrices with its transformed weights into M
//! `[group][6·6][panel][MR][oc in panel]`, and transforms that back.

#![allow(
    clippy::needless_range_loop,
    reason = "indices of register arrays: iterators over them end up in memory"
)]

use super::{
    cpu::{Call, Walk, product},
    pack::{A, B, PANEL},
};
use crate::{
    Tier,
    simd::{Lane, Simd, tiered},
};

/// Elements of scratch (V and M) that a block aims at: 8 MiB.
const SCRATCH: usize = 1 << 21;
/// Most groups in a block: V and M then stay in a second-level cache of 2 MiB up to 128 channels.
const MAX_GROUPS: usize = 4;

/// Rows of the micro-kernel by lanes.
const fn rows(lanes: usize) -> usize {
    if lanes == 16 { 14 } else { 6 }
}

/// Sizes of the blocks, fixed by the call's shapes alone. Lengths in f32.
pub(super) struct Plan {
    /// Tiles in a block: a multiple of the micro-kernel's rows.
    block: usize,
    /// Tiles in a row and in a column of the output.
    nx: usize,
    ny: usize,
    /// From one of the 36 matrices to the next, in V and in M: an odd number of vectors, so that the 36 do not fall on
    /// the same lines of a cache.
    v_step: usize,
    m_step: usize,
    /// A pixel of the padding.
    zeros: usize,
    mr: usize,
}

impl Plan {
    pub(super) fn new<T>(call: &Call<'_, T>) -> Self {
        let lanes = super::cpu::lanes(call.conv.device.tier());
        let mr = rows(lanes);
        let (ic, oc) = (
            call.ic.next_multiple_of(lanes),
            call.oc.next_multiple_of(lanes),
        );
        let groups = (SCRATCH / (36 * mr * (ic + oc))).clamp(1, MAX_GROUPS);
        Self {
            block: groups * mr,
            nx: call.ow.div_ceil(4),
            ny: call.oh.div_ceil(4),
            v_step: ((mr * ic / lanes) | 1) * lanes,
            m_step: ((mr * oc / lanes) | 1) * lanes,
            zeros: ic,
            mr,
        }
    }

    /// Blocks do not cross pictures of a batch.
    fn blocks(&self) -> usize {
        (self.nx * self.ny).div_ceil(self.block)
    }

    pub(super) fn tasks<T>(&self, call: &Call<'_, T>) -> usize {
        call.batch * self.blocks()
    }

    pub(super) fn scratch_len(&self) -> usize {
        self.zeros + self.block / self.mr * 36 * (self.v_step + self.m_step)
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

/// The parts of one task: tiles `first..first + count` of a picture, and where they lie in the scratch.
struct Block {
    batch: usize,
    first: usize,
    count: usize,
    zeros: *mut f32,
    v: *mut f32,
    m: *mut f32,
}

impl Block {
    /// The first output pixel of tile `t` of the block.
    #[inline(always)]
    fn corner(&self, plan: &Plan, t: usize) -> [usize; 3] {
        let t = self.first + t;
        [self.batch, t / plan.nx * 4, t % plan.nx * 4]
    }
}

/// One block of tiles of the output.
///
/// # Safety
/// The call's pointers reach its shapes; `scratch` holds the plan's length and is this task's own; no other task has this
/// index.
pub(super) unsafe fn block<T: Lane>(
    tier: Tier,
    call: &Call<'_, T>,
    plan: &Plan,
    scratch: *mut f32,
    task: usize,
) {
    let first = task % plan.blocks() * plan.block;
    // The zeros, V and M lie one after another.
    let v = scratch.wrapping_add(plan.zeros);
    let block = Block {
        batch: task / plan.blocks(),
        first,
        count: plan.block.min(plan.nx * plan.ny - first),
        zeros: scratch,
        v,
        m: v.wrapping_add(plan.block / plan.mr * 36 * plan.v_step),
    };
    let sizes = Sizes {
        ic: call.ic,
        oc: call.oc,
        weights: call.conv.packed.ptr(),
    };
    // SAFETY: the caller's promise; the block's parts are inside the scratch; V is written before it is read, M likewise.
    unsafe {
        transform_inputs(tier, call, plan, &block);
        multiply(tier, sizes, plan, &block);
        transform_outputs(tier, call, plan, &block);
    }
}

/// What the products need to know of the call.
#[derive(Clone, Copy)]
struct Sizes {
    ic: usize,
    oc: usize,
    weights: *const f32,
}

#[inline(always)]
unsafe fn inputs<S: Simd, T: Lane>(call: &Call<'_, T>, plan: &Plan, block: &Block) {
    let mr = rows(S::LANES);
    let blocks = call.ic.div_ceil(S::LANES);
    // SAFETY: the zeros are as long as a pixel (of f32, so of any dtype); V has a place for each tile of the last group.
    unsafe {
        for i in 0..blocks {
            S::store(block.zeros.add(i * S::LANES), S::zero());
        }
        for t in 0..block.count.next_multiple_of(mr) {
            let to = block.v.add(t / mr * 36 * plan.v_step + t % mr * S::LANES);
            if t < block.count {
                let zeros = block.zeros.cast_const().cast::<T>();
                transform_in::<S, T>(
                    call,
                    block.corner(plan, t),
                    zeros,
                    to,
                    mr * S::LANES,
                    plan.v_step,
                );
            } else {
                for xi in 0..36 {
                    for i in 0..blocks {
                        S::store(to.add(xi * plan.v_step + i * mr * S::LANES), S::zero());
                    }
                }
            }
        }
    }
}
tiered!(
    fn transform_inputs[T: Lane][T](call: &Call<'_, T>, plan: &Plan, block: &Block) = inputs
);

#[inline(always)]
unsafe fn products<S: Simd>(sizes: Sizes, plan: &Plan, block: &Block) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if S::LANES == 16 {
            products_of::<S, { rows(16) }, { rows(16) / 2 }>(sizes, plan, block);
        } else {
            products_of::<S, { rows(8) }, { rows(8) / 2 }>(sizes, plan, block);
        }
    }
}
tiered!(
    fn multiply(sizes: Sizes, plan: &Plan, block: &Block) = products
);

/// M = V·U for each of the 36 points, panel by panel. A last group that is at most half full takes HALF rows.
#[inline(always)]
unsafe fn products_of<S: Simd, const MR: usize, const HALF: usize>(
    sizes: Sizes,
    plan: &Plan,
    block: &Block,
) {
    let Sizes { ic, oc, weights } = sizes;
    let (blocks, vectors) = (ic.div_ceil(S::LANES), oc.div_ceil(S::LANES));
    let groups = block.count.div_ceil(MR);
    let weights_of = |xi: usize, vector: usize| {
        let width = PANEL.min(vectors - vector);
        weights.wrapping_add((vector * 36 + xi * width) * S::LANES * ic)
    };
    for xi in 0..36 {
        for vector in (0..vectors).step_by(PANEL) {
            let width = PANEL.min(vectors - vector);
            let u = weights_of(xi, vector);
            let next = if vector + PANEL < vectors {
                weights_of(xi, vector + PANEL)
            } else {
                weights_of((xi + 1).min(35), 0)
            };
            for g in 0..groups {
                let ahead_step = (PANEL * S::LANES).div_ceil(groups);
                let walk = Walk {
                    taps: &[0],
                    blocks,
                    step: MR * S::LANES,
                    last: ic - (blocks - 1) * S::LANES,
                    ahead: next.wrapping_add(g * ahead_step * ic),
                    ahead_step,
                };
                // SAFETY: the group's rows lie in V and M; the panel holds 36 matrices of ic rows of its vectors.
                unsafe {
                    let a = block.v.add((g * 36 + xi) * plan.v_step);
                    let c = block
                        .m
                        .add((g * 36 + xi) * plan.m_step + vector * MR * S::LANES);
                    match (block.count - g * MR > HALF, width == PANEL) {
                        (true, true) => product::<S, MR, PANEL>(a, walk, u, c, PANEL * S::LANES),
                        (true, false) => product::<S, MR, 1>(a, walk, u, c, S::LANES),
                        (false, true) => product::<S, HALF, PANEL>(a, walk, u, c, PANEL * S::LANES),
                        (false, false) => product::<S, HALF, 1>(a, walk, u, c, S::LANES),
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn outputs<S: Simd, T: Lane>(call: &Call<'_, T>, plan: &Plan, block: &Block) {
    let mr = rows(S::LANES);
    let vectors = call.oc.div_ceil(S::LANES);
    for t in 0..block.count {
        for vector in 0..vectors {
            let panel = vector / PANEL * PANEL;
            let width = PANEL.min(vectors - panel);
            let at = panel * mr + t % mr * width + vector - panel;
            // SAFETY: the products wrote the tile's sums there.
            unsafe {
                let from = block.m.add(t / mr * 36 * plan.m_step + at * S::LANES);
                transform_out::<S, T>(call, block.corner(plan, t), vector, from, plan.m_step);
            }
        }
    }
}
tiered!(
    fn transform_outputs[T: Lane][T](call: &Call<'_, T>, plan: &Plan, block: &Block) = outputs
);

/// The 6×6 inputs of a tile whose first output is (y, x): blocks of channels `block_step` apart, the 36 results `xi_step`
/// apart. `zeros` is a pixel of the padding.
#[inline(always)]
unsafe fn transform_in<S: Simd, T: Lane>(
    call: &Call<'_, T>,
    [batch, y, x]: [usize; 3],
    zeros: *const T,
    v: *mut f32,
    block_step: usize,
    xi_step: usize,
) {
    let mut pixels = [[zeros; 6]; 6];
    let inside = match (call.pixel(batch, y, x), call.pixel(batch, y + 5, x + 5)) {
        (Some(first), Some(_)) if call.shift() == 0 => Some(first),
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

/// The 4×4 outputs of a tile for one vector of channels; the 36 sums are `step` apart.
#[inline(always)]
unsafe fn transform_out<S: Simd, T: Lane>(
    call: &Call<'_, T>,
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
