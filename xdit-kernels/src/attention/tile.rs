//! The matrix tile: a few rows against one panel, accumulated in registers.

use super::lanes::{Lanes, Product};

/// Keys of a block: the tile of weights that is between the two products, so the row step of both.
pub(super) const KEYS: usize = 256;

/// Heights that a tile is compiled for, as far as they do not exceed the tier's `MR`.
const HEIGHTS: [usize; 6] = [1, 2, 4, 6, 8, 14];

/// The height of the next tile when `rows` are left: all of them if at most one row is wasted, else as many as fit.
#[inline(always)]
pub(super) fn height<S: Lanes>(rows: usize) -> usize {
    let mut best = 1;
    for h in HEIGHTS {
        if h > S::MR {
            break;
        }
        if h > rows {
            return if h == rows + 1 { h } else { best };
        }
        best = h;
    }
    best
}

/// a · b over `n` words of k: row i's word (or group of words) k at a + i·row_step + k·k_step, b a panel of `NV` vectors a row.
///
/// # Safety
/// Those words are readable; as [`Simd`]'s.
#[allow(
    clippy::needless_range_loop,
    reason = "iterators are inlined only with some settings of the compiler; sums must be in registers with all"
)]
#[inline(always)]
unsafe fn accumulate<S: Lanes, P: Product, const M: usize, const NV: usize>(
    n: usize,
    a: *const f32,
    row_step: usize,
    k_step: usize,
    b: *const f32,
) -> [[S::V; NV]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[S::zero(); NV]; M];
        let (mut a, mut b) = (a, b);
        let group = P::group::<S>();
        if group == 2 {
            let mut spare = [S::zero(); NV];
            for _ in 0..n.div_ceil(group) {
                S::add_groups(&mut acc, &mut spare, a.cast(), row_step, b.cast());
                a = a.add(k_step);
                b = b.add(group * NV * S::LANES);
            }
            S::order_sums(&mut acc, &spare);
            return acc;
        }
        if S::LANE_PRODUCTS && P::WORD == 1 {
            if k_step == 1 {
                S::add_steps(&mut acc, n, a, row_step, b);
                return acc;
            }
            for _ in 0..n {
                let columns = std::array::from_fn(|j| S::load(b.add(j * S::LANES)));
                S::add_products(&mut acc, a, columns);
                a = a.add(k_step);
                b = b.add(NV * S::LANES);
            }
            return acc;
        }
        for _ in 0..n {
            let mut columns = [S::zero(); NV];
            for j in 0..NV {
                columns[j] = S::load(b.add(j * S::LANES));
            }
            for i in 0..M {
                let x = S::splat(*a.add(i * row_step));
                for j in 0..NV {
                    acc[i][j] = P::mac::<S>(acc[i][j], x, columns[j]);
                }
            }
            a = a.add(k_step);
            b = b.add(NV * S::LANES);
        }
        acc
    }
}

/// scores[M][..] = q · kᵀ: q packed [n][M], `keys` a panel [n][NV vectors], rows of scores `KEYS` apart.
#[allow(clippy::needless_range_loop, reason = "as `accumulate`")]
#[inline(always)]
unsafe fn score<S: Lanes, P: Product, const M: usize, const NV: usize>(
    n: usize,
    q: *const f32,
    keys: *const f32,
    scores: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let group = P::group::<S>();
        let acc = accumulate::<S, P, M, NV>(n, q, group, M * group, keys);
        for i in 0..M {
            for j in 0..NV {
                S::store(scores.add(i * KEYS + j * S::LANES), acc[i][j]);
            }
        }
    }
}

/// out[M][..] = out · rescale + weights · v: weights [M][KEYS], `values` a panel [n][NV vectors], rows of out `step`
/// apart.
#[allow(clippy::needless_range_loop, reason = "as `accumulate`")]
#[inline(always)]
unsafe fn weigh<S: Lanes, P: Product, const M: usize, const NV: usize>(
    n: usize,
    weights: *const f32,
    values: *const f32,
    rescale: *const f32,
    out: *mut f32,
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let group = P::group::<S>();
        let acc = accumulate::<S, P, M, NV>(n, weights, KEYS / P::WORD, group, values);
        for i in 0..M {
            let factor = S::splat(*rescale.add(i));
            for j in 0..NV {
                let o = out.add(i * step + j * S::LANES);
                S::store(o, S::fma(S::load(o), factor, acc[i][j]));
            }
        }
    }
}

/// Calls a tile function compiled for `$height` rows and one vector or `NV` a row.
macro_rules! with_height {
    ($tile:ident, $height:expr, $width:expr, $($arg:expr),*) => {
        with_height!(@ $tile, $height, $width, [1 2 4 6 8 14], ($($arg),*))
    };
    (@ $tile:ident, $height:expr, $width:expr, [$($h:literal)*], $args:tt) => {
        match ($height, $width > S::LANES) {
            $(
                ($h, true) if $h <= S::MR && S::NV == 2 => with_height!(@@ $tile, $h, 2, $args),
                ($h, false) if $h <= S::MR => with_height!(@@ $tile, $h, 1, $args),
            )*
            _ => unreachable!("heights come from `height`, widths from `panel_width`"),
        }
    };
    (@@ $tile:ident, $h:literal, $nv:literal, ($($arg:expr),*)) => {
        $tile::<S, P, $h, $nv>($($arg),*)
    };
}

/// scores [height][KEYS] = q · kᵀ for one panel of keys.
///
/// # Safety
/// `q` holds [n][height] words, `keys` [n][width]; `scores` is writable for height rows of width, `KEYS` apart; height
/// comes from [`height`] and width is one vector or `NR`.
#[inline(always)]
pub(super) unsafe fn scores<S: Lanes, P: Product>(
    height: usize,
    width: usize,
    n: usize,
    q: *const f32,
    keys: *const f32,
    scores: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe { with_height!(score, height, width, n, q, keys, scores) }
}

/// out [height][step] = out · rescale + weights · v for one panel of values.
///
/// # Safety
/// `weights` holds height rows of n words, `KEYS` / `P::WORD` apart, `values` [n][width], `rescale` height numbers;
/// `out` is readable and writable for height rows of width, `step` apart; height and width as for [`scores`].
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes pointers and sizes"
)]
pub(super) unsafe fn weighted_sum<S: Lanes, P: Product>(
    height: usize,
    width: usize,
    n: usize,
    weights: *const f32,
    values: *const f32,
    rescale: *const f32,
    out: *mut f32,
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { with_height!(weigh, height, width, n, weights, values, rescale, out, step) }
}
