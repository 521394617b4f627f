//! Copies into the layout of the matrix tile, converting to f32 (or pairing bf16) on the way.
//!
//! A panel is `NR` columns wide, the last one of a matrix one vector if that is enough: [k][width] words, so that a
//! tile reads it from front to back. Keys are packed [keys / NR][d][NR], values [d / NR][keys][NR].

use super::lanes::Lanes;
use crate::simd::{Lane, tiered};
use half::bf16;

/// `n` keys of `d` elements, `step` elements apart, as panels of f32 [d][NR]; missing columns are 0.
///
/// # Safety
/// `src` is readable for those keys, `dst` writable for d · (n rounded up to a vector) words.
#[inline(always)]
unsafe fn keys_single<S: Lanes, T: Lane>(
    src: *const T,
    step: usize,
    n: usize,
    d: usize,
    dst: *mut f32,
) {
    let mut first = 0;
    while first < n {
        let w = panel_width::<S>(n - first);
        let count = w.min(n - first);
        // SAFETY: key first + j < n lies inside `src`; the panel starts after first·d words (all before it are NR wide)
        // and holds d rows of w, j < w.
        unsafe {
            let panel = dst.add(first * d);
            for j in 0..count {
                let key = src.add((first + j) * step);
                for k in 0..d {
                    panel.add(k * w + j).write((*key.add(k)).to_f32());
                }
            }
            for j in count..w {
                for k in 0..d {
                    panel.add(k * w + j).write(0.0);
                }
            }
        }
        first += w;
    }
}
tiered!(pub(super) fn pack_keys_single[T: Lane][T](src: *const T, step: usize, n: usize, d: usize, dst: *mut f32) = keys_single);

/// The same with neighbours along d in one word: [⌈d/2⌉][NR].
///
/// # Safety
/// As [`keys_single`], with ⌈d/2⌉ for d in `dst`.
#[inline(always)]
unsafe fn keys_pair<S: Lanes>(src: *const bf16, step: usize, n: usize, d: usize, dst: *mut f32) {
    let words = d.div_ceil(2);
    let mut first = 0;
    while first < n {
        let w = panel_width::<S>(n - first);
        // SAFETY: as in `keys_single`; the second element of a word is read only where it is inside the key.
        unsafe {
            let panel = dst.add(first * words);
            for j in 0..w {
                for k in 0..words {
                    let word = if first + j < n {
                        let key = src.add((first + j) * step);
                        let high = if 2 * k + 1 < d {
                            *key.add(2 * k + 1)
                        } else {
                            bf16::ZERO
                        };
                        pair(*key.add(2 * k), high)
                    } else {
                        0.0
                    };
                    panel.add(k * w + j).write(word);
                }
            }
        }
        first += w;
    }
}
tiered!(pub(super) fn pack_keys_pair(src: *const bf16, step: usize, n: usize, d: usize, dst: *mut f32) = keys_pair);

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

/// The same with neighbouring keys in one word: [rows/2][NR]; an odd last key is paired with 0.
///
/// # Safety
/// As [`values_single`], `dst` writable for rows/2 · (d rounded up to a vector) words, `at` and `rows` even.
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
            for j in 0..n.div_ceil(2) {
                for c in 0..w {
                    panel
                        .add(j * w + c)
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
pub(super) fn pair(low: bf16, high: bf16) -> f32 {
    f32::from_bits(u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16)
}
