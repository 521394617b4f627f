//! Weights in the order in which the kernels read them: panels of one or two vectors of output channels.

use crate::{Error, Result, Tensor, storage::Buffer};
use rayon::prelude::*;

/// Vectors of output channels in a panel; an odd last vector is a panel by itself.
pub(super) const PANEL: usize = 2;

/// Interpolation points of F(4×4, 3×3) besides 0 and ∞ are ±A and ±B.
pub(super) const A: f32 = 0.625;
pub(super) const B: f32 = 1.5;

/// The order that a kernel wants. Channels are padded with zeros to whole vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[panel][ic block][tap][ic in block][oc in panel]`, a block being one vector's lanes (fewer at the end).
    Direct,
    /// `[ic block][tap][oc][lane of ic]`.
    Narrow,
    /// `[panel][6·6][ic][oc in panel]`.
    Winograd,
}

/// Packed weights, f32.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) kind: Kind,
    buffer: Buffer,
    len: usize,
}

impl Packed {
    /// From `weight` `[oc, ic, kh, kw]`, f32.
    pub(super) fn new(weight: &Tensor, kind: Kind, lanes: usize) -> Result<Self> {
        let [oc, ic, kh, kw] = [0, 1, 2, 3].map(|d| weight.dim(d));
        let w = weight.slice::<f32>().unwrap_or_default();
        let taps = if kind == Kind::Winograd { 36 } else { kh * kw };
        let (rows, columns) = match kind {
            Kind::Narrow => (ic.checked_next_multiple_of(lanes), oc),
            _ => (oc.checked_next_multiple_of(lanes), ic),
        };
        let len = rows
            .and_then(|n| n.checked_mul(columns.checked_mul(taps)?))
            .filter(|n| *n <= usize::MAX / 8)
            .ok_or(Error::OutOfMemory {
                op: "conv2d",
                bytes: usize::MAX,
            })?;
        let buffer = Buffer::new(len * size_of::<f32>(), true, "conv2d")?;
        // SAFETY: the buffer holds `len` f32, all zero, and nobody else has its pointer yet.
        let all = unsafe { std::slice::from_raw_parts_mut(buffer.ptr().cast::<f32>(), len) };
        match kind {
            Kind::Narrow => {
                for (at, &v) in w.iter().enumerate() {
                    let (o, i, tap) = (at / taps / ic, at / taps % ic, at % taps);
                    all[(((i / lanes) * taps + tap) * oc + o) * lanes + i % lanes] = v;
                }
            }
            _ => panels(w, [oc, ic, kh * kw], kind, lanes, all),
        }
        Ok(Self { kind, buffer, len })
    }

    pub(super) fn byte_len(&self) -> usize {
        self.len * size_of::<f32>()
    }

    pub(super) fn ptr(&self) -> *const f32 {
        self.buffer.ptr().cast_const().cast()
    }
}

/// The panels of `Direct` or `Winograd`, in parallel.
fn panels(w: &[f32], [oc, ic, k]: [usize; 3], kind: Kind, lanes: usize, all: &mut [f32]) {
    let taps = if kind == Kind::Winograd { 36 } else { k };
    let g_matrix = g_matrix();
    all.par_chunks_mut(PANEL * lanes * taps * ic)
        .enumerate()
        .for_each(|(p, out)| {
            let width = out.len() / (taps * ic);
            let first = p * PANEL * lanes;
            for (lane, o) in (first..oc.min(first + width)).enumerate() {
                for i in 0..ic {
                    let g = &w[(o * ic + i) * k..][..k];
                    if kind == Kind::Winograd {
                        for (xi, u) in transform(&g_matrix, g).into_iter().enumerate() {
                            out[(xi * ic + i) * width + lane] = u;
                        }
                    } else {
                        let (block, in_block) = (i / lanes, i % lanes);
                        let block_len = lanes.min(ic - block * lanes);
                        for (tap, &v) in g.iter().enumerate() {
                            out[(block * lanes * taps + tap * block_len + in_block) * width
                                + lane] = v;
                        }
                    }
                }
            }
        });
}

/// Row i is (1, p, p²)/N for the point p, N the product of its distances to the other finite points; the last row, of
/// ∞, is (0, 0, 1).
fn g_matrix() -> [[f64; 3]; 6] {
    let (a, b) = (f64::from(A), f64::from(B));
    let points = [0.0, a, -a, b, -b];
    std::array::from_fn(|i| {
        let Some(&p) = points.get(i) else {
            return [0.0, 0.0, 1.0];
        };
        let n: f64 = points.iter().filter(|&&q| q != p).map(|q| p - q).product();
        [1.0 / n, p / n, p * p / n]
    })
}

/// G·g·Gᵀ in f64, rounded once.
fn transform(g_matrix: &[[f64; 3]; 6], g: &[f32]) -> [f32; 36] {
    let dot = |row: &[f64; 3], x: [f64; 3]| row[0] * x[0] + row[1] * x[1] + row[2] * x[2];
    let rows = g_matrix
        .map(|row| [0, 1, 2].map(|x| dot(&row, [0, 1, 2].map(|y| f64::from(g[y * 3 + x])))));
    std::array::from_fn(|xi| dot(&g_matrix[xi % 6], rows[xi / 6]) as f32)
}
