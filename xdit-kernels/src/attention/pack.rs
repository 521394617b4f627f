//! Copies into the layout of the matrix tile, converting to f32 (or pairing bf16) on the way.
//!
//! A panel is `NR` columns wide, the last one of a matrix one vector if that is enough: [k][width] words, so that a
//! tile reads it from front to back. Keys are packed [keys / NR][d][NR], values [d / NR][keys][NR].

use super::lanes::Lanes;
use super::scratch::prefetch;
use crate::simd::{
    Lane, tiered,
    transpose::{MAX_LANES, exchange_fours},
};
use half::bf16;

/// How the elements of a row become words along d.
///
/// # Safety
/// As [`Simd`](crate::simd::Simd)'s.
pub(super) trait Words {
    /// An element.
    type T: Lane;
    /// Elements of a word.
    const WORD: usize;
    /// Words of a row of d elements, where `group` of pairs stand together.
    fn count(d: usize, group: usize) -> usize;
    /// Words k..k + n of the row at `row`, which has `d` elements; the lanes from n on are 0.
    unsafe fn load<S: Lanes>(row: *const Self::T, d: usize, k: usize, n: usize) -> S::V;
}

/// A word is an f32.
pub(super) struct Widened<T>(std::marker::PhantomData<T>);

/// A word is two bf16, the second of the last one 0 if d is odd.
pub(super) struct Paired;

impl<T: Lane> Words for Widened<T> {
    type T = T;
    const WORD: usize = 1;
    fn count(d: usize, _: usize) -> usize {
        d
    }
    #[inline(always)]
    unsafe fn load<S: Lanes>(row: *const T, _: usize, k: usize, n: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            if n == S::LANES {
                T::load::<S>(row.add(k))
            } else {
                T::load_n::<S>(row.add(k), n)
            }
        }
    }
}

impl Words for Paired {
    type T = bf16;
    const WORD: usize = 2;
    fn count(d: usize, group: usize) -> usize {
        d.div_ceil(2 * group) * group
    }
    #[inline(always)]
    unsafe fn load<S: Lanes>(row: *const bf16, d: usize, k: usize, n: usize) -> S::V {
        // SAFETY: the caller's promise: elements below d are readable, and no other is read.
        unsafe {
            let words = row.add(2 * k).cast::<f32>();
            if 2 * (k + n) <= d {
                return S::load_n(words, n);
            }
            let mut all = [0f32; MAX_LANES];
            for (i, word) in all.iter_mut().enumerate().take(n - 1) {
                *word = words.add(i).read_unaligned();
            }
            all[n - 1] = pair(*row.add(d - 1), bf16::ZERO);
            S::load(all.as_ptr())
        }
    }
}

/// The words of up to `LANES` rows of d elements with rows and columns exchanged: word (or group of words) k of row i goes to
/// `dst`[k · step + i]; the columns from the number of rows to `width` become 0.
///
/// # Safety
/// Each row is readable for d elements, `dst` writable for `width` words at each k · `step`; rows and `width` are at most
/// `LANES`.
#[allow(
    clippy::needless_range_loop,
    reason = "iterators are inlined only with some settings of the compiler"
)]
#[inline(always)]
pub(super) unsafe fn exchange<S: Lanes, W: Words>(
    rows: &[*const W::T],
    d: usize,
    dst: *mut f32,
    step: usize,
    width: usize,
) {
    if W::WORD == 2 && S::PAIR_GROUP == 2 {
        // SAFETY: the caller's promise; the elements of such words are bf16.
        return unsafe { exchange_fours(rows, d, dst.cast(), step, width) };
    }
    let words = W::count(d, 1);
    let mut k = 0;
    while k < words {
        let n = S::LANES.min(words - k);
        // SAFETY: words k..k + n are inside each row, and their places inside `dst`.
        unsafe {
            let mut square = [S::zero(); MAX_LANES];
            for i in 0..rows.len() {
                square[i] = W::load::<S>(rows[i], d, k, n);
            }
            S::transpose(&mut square);
            for i in 0..n {
                let to = dst.add((k + i) * step);
                if width == S::LANES {
                    S::store(to, square[i]);
                } else {
                    S::store_n(to, width, square[i]);
                }
            }
        }
        k += n;
    }
}

/// `n` keys of `d` elements, `step` elements apart, as panels [words of d][NR]; missing columns are 0.
///
/// # Safety
/// `src` is readable for those keys, `dst` writable for (words of d) · (n rounded up to a vector) words.
#[inline(always)]
unsafe fn keys<S: Lanes, W: Words>(
    src: *const W::T,
    step: usize,
    n: usize,
    d: usize,
    dst: *mut f32,
) {
    let mut first = 0;
    while first < n {
        let panel = panel_width::<S>(n - first);
        let mut x = 0;
        while x < panel {
            let at = first + x;
            let count = n.saturating_sub(at).min(S::LANES);
            let mut rows = [src; MAX_LANES];
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                *row = src.wrapping_add((at + i) * step);
                // The address may be any.
                prefetch(row.wrapping_add(step.wrapping_mul(S::LANES)), d);
            }
            // SAFETY: keys at..at + count < n are inside `src`. The panel starts after first · words words (all before it
            // are NR wide) and its rows are `panel` words.
            unsafe {
                let group = if W::WORD == 2 { S::PAIR_GROUP } else { 1 };
                let dst = dst.add(first * W::count(d, group) + x * group);
                exchange::<S, W>(&rows[..count], d, dst, panel, S::LANES);
            }
            x += S::LANES;
        }
        first += panel;
    }
}
tiered!(pub(super) fn pack_keys[W: Words][W](src: *const W::T, step: usize, n: usize, d: usize, dst: *mut f32) = keys);

/// `n` values of `d` elements, `step` elements apart, as panels of f32 [rows][NR], from the panels' row `at` on; missing
/// columns are 0, as are the rows whose `seen` is 0.
///
/// # Safety
/// `src` is readable for those values, `seen` (if not null) for n flags, `dst` writable for rows · (d rounded up to a
/// vector) words; at + n ≤ rows.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes pointers and sizes"
)]
unsafe fn values_single<S: Lanes, T: Lane>(
    src: *const T,
    step: usize,
    n: usize,
    d: usize,
    seen: *const f32,
    dst: *mut f32,
    at: usize,
    rows: usize,
) {
    let mut first = 0;
    while first < d {
        let w = panel_width::<S>(d - first);
        // SAFETY: row at + j < rows of the panel lies after first·rows words; the vectors of a row fill its w words, and
        // only elements below d are read.
        unsafe {
            let panel = dst.add(first * rows + at * w);
            for j in 0..n {
                let value = src.add(j * step + first);
                if first == 0 {
                    prefetch(value.wrapping_add(step.wrapping_mul(8)), d);
                }
                let visible = seen.is_null() || *seen.add(j) != 0.0;
                let mut x = 0;
                while x < w {
                    let left = (d - first).saturating_sub(x).min(S::LANES);
                    let v = if !visible || left == 0 {
                        S::zero()
                    } else if left == S::LANES {
                        T::load::<S>(value.add(x))
                    } else {
                        T::load_n::<S>(value.add(x), left)
                    };
                    S::store(panel.add(j * w + x), v);
                    x += S::LANES;
                }
            }
        }
        first += w;
    }
}
tiered!(pub(super) fn pack_values_single[T: Lane][T](src: *const T, step: usize, n: usize, d: usize, seen: *const f32, dst: *mut f32, at: usize, rows: usize) = values_single);

/// The same with neighbouring keys in one word: [rows/2][NR], in groups of the tier; zeros fill the last word or group.
///
/// # Safety
/// As [`values_single`], `dst` writable for rows/2 · (d rounded up to a vector) words, `at` and `rows` multiples of a group.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes pointers and sizes"
)]
unsafe fn values_pair<S: Lanes>(
    src: *const bf16,
    step: usize,
    n: usize,
    d: usize,
    seen: *const f32,
    dst: *mut f32,
    at: usize,
    rows: usize,
) {
    let mut first = 0;
    while first < d {
        let w = panel_width::<S>(d - first);
        // SAFETY: as in `values_single`; element (j, c) is read only for j < n and first + c < d.
        unsafe {
            let panel = dst.add(first * (rows / 2) + at / 2 * w);
            let at = |j: usize, c: usize| {
                let visible = j < n && first + c < d && (seen.is_null() || *seen.add(j) != 0.0);
                if visible {
                    *src.add(j * step + first + c)
                } else {
                    bf16::ZERO
                }
            };
            let group = S::PAIR_GROUP;
            // Whole groups of four visible keys: the compiler interleaves vectors of columns.
            let mut whole = 0;
            while group == 2 && first + w <= d && whole + 4 <= n {
                if !seen.is_null() && (0..4).any(|i| *seen.add(whole + i) == 0.0) {
                    break;
                }
                let rows: [_; 4] = std::array::from_fn(|i| src.add((whole + i) * step + first));
                let to = panel.cast::<[bf16; 4]>().add(whole / 4 * w);
                for c in 0..w {
                    to.add(c).write(rows.map(|row| *row.add(c)));
                }
                whole += 4;
            }
            for j in whole / 2..n.div_ceil(2 * group) * group {
                for c in 0..w {
                    panel
                        .add((j / group * w + c) * group + j % group)
                        .write(pair(at(2 * j, c), at(2 * j + 1, c)));
                }
            }
        }
        first += w;
    }
}
tiered!(pub(super) fn pack_values_pair(src: *const bf16, step: usize, n: usize, d: usize, seen: *const f32, dst: *mut f32, at: usize, rows: usize) = values_pair);

/// Width of the next panel when `left` columns are left.
#[inline(always)]
pub(super) fn panel_width<S: Lanes>(left: usize) -> usize {
    if left > S::LANES { S::NR } else { S::LANES }
}

#[inline(always)]
fn pair(low: bf16, high: bf16) -> f32 {
    f32::from_bits(u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16)
}
