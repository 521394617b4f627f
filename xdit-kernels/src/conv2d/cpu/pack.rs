//! Packs weights in the order in which the kernels read them: panels of one or two vectors of output channels.

use crate::{
    DType, Error, Result, Tier, View, WeightForm, conv2d::options::FEW_OUTPUTS, layout,
    rows::Floats, storage::Buffer, vector::reserved,
};
use rayon::prelude::*;

/// Vectors of output channels in a panel. If their number is odd, the last one is a panel by itself.
pub(super) const PANEL: usize = 2;

/// The interpolation points of F(4×4, 3×3) are 0, ±A, ±B and ∞.
pub(super) const A: f32 = 0.625;
pub(super) const B: f32 = 1.5;

/// The order of the packed weights. Zeros pad channels to whole vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PanelOrder {
    /// `[panel][ic block][tap][ic in block][oc in panel]`. A block has as many channels as a vector has lanes, the last one
    /// maybe fewer.
    Direct,
    /// The same with two neighbouring input channels in a word, as bf16, the first in the low half: `[panel][ic block][tap]
    /// [pair in block][oc in panel]`.
    DirectPairs,
    /// `[ic block][tap][oc][lane of ic]`, for at most [`FEW_OUTPUTS`] output channels.
    Narrow,
    /// `[panel][6·6][ic][oc in panel]`.
    Winograd,
}

/// The weights and the bias of a convolution, in words of 32 bits.
#[derive(Debug)]
pub(in crate::conv2d) struct PackedConv2d {
    pub(super) order: PanelOrder,
    buffer: Buffer,
    len: usize,
    /// One value for each output channel, zeros where there is no bias; padded with zeros to whole vectors.
    pub(super) bias: Vec<f32>,
    /// `[oc, ic, kh, kw]`.
    pub(super) shape: [usize; 4],
    pub(super) tier: Tier,
}

impl PackedConv2d {
    /// `weight` of `shape` `[oc, ic, kh, kw]` and `bias` `[oc]`, rounded to `dtype`, in this form. The caller has checked the
    /// shapes.
    pub(in crate::conv2d) fn new(
        weight: View<'_>,
        bias: Option<View<'_>>,
        form: WeightForm,
        shape: [usize; 4],
        dtype: DType,
        tier: Tier,
    ) -> Result<Self> {
        let [oc, ic, kh, kw] = shape;
        let order = match form {
            WeightForm::Winograd => PanelOrder::Winograd,
            WeightForm::Dense(_) if oc <= FEW_OUTPUTS => PanelOrder::Narrow,
            WeightForm::Dense(DType::BF16) => PanelOrder::DirectPairs,
            WeightForm::Dense(_) => PanelOrder::Direct,
        };
        let lanes = lanes(tier);
        let taps = match order {
            PanelOrder::Winograd => 36,
            _ => kh * kw,
        };
        let (rows, columns) = match order {
            PanelOrder::Narrow => (ic.checked_next_multiple_of(lanes), oc),
            PanelOrder::DirectPairs => (oc.checked_next_multiple_of(lanes), ic.div_ceil(2)),
            _ => (oc.checked_next_multiple_of(lanes), ic),
        };
        let len = rows
            .and_then(|n| n.checked_mul(columns.checked_mul(taps)?))
            .filter(|n| *n <= usize::MAX / 8)
            .ok_or(Error::OutOfMemory {
                op: "conv2d",
                bytes: usize::MAX,
            })?;
        let weight = layout::cast(weight, dtype)?;
        let weights = Floats::new("conv2d", weight.view(), &shape)?;
        let w: &[f32] = &weights;
        let buffer = Buffer::new(len * size_of::<f32>(), true, "conv2d")?;
        // SAFETY: the buffer holds `len` f32, all zero, and nobody else has its pointer yet.
        let all = unsafe { std::slice::from_raw_parts_mut(buffer.ptr().cast::<f32>(), len) };
        match order {
            PanelOrder::Narrow => {
                for (at, &v) in w.iter().enumerate() {
                    let (o, i, tap) = (at / taps / ic, at / taps % ic, at % taps);
                    all[(((i / lanes) * taps + tap) * oc + o) * lanes + i % lanes] = v;
                }
            }
            _ => panels(w, [oc, ic, kh * kw], order, lanes, all),
        }
        Ok(Self {
            order,
            buffer,
            len,
            bias: padded_bias(bias, dtype, oc, lanes)?,
            shape,
            tier,
        })
    }

    /// Bytes of weights and bias, padding included.
    pub(in crate::conv2d) fn byte_len(&self) -> usize {
        (self.len + self.bias.len()) * size_of::<f32>()
    }

    pub(super) fn ptr(&self) -> *const f32 {
        self.buffer.ptr().cast_const().cast()
    }
}

/// Lanes of the vectors of a tier, by which channels are blocked.
pub(super) fn lanes(tier: Tier) -> usize {
    match tier {
        Tier::Avx512 | Tier::Avx512Bf16 => 16,
        Tier::Avx2 | Tier::Portable | Tier::Neon | Tier::NeonBf16 => 8,
    }
}

/// The bias rounded to `dtype`, or zeros without one, padded with zeros to whole vectors.
fn padded_bias(bias: Option<View<'_>>, dtype: DType, oc: usize, lanes: usize) -> Result<Vec<f32>> {
    let len = oc.next_multiple_of(lanes);
    let mut values = reserved("conv2d bias", len)?;
    if let Some(bias) = bias {
        let rounded = layout::cast(bias, dtype)?;
        values.extend_from_slice(&Floats::new("conv2d", rounded.view(), &[oc])?);
    }
    values.resize(len, 0.0);
    Ok(values)
}

/// Fills the panels of `Direct`, `DirectPairs` or `Winograd`, in parallel.
fn panels(w: &[f32], [oc, ic, k]: [usize; 3], order: PanelOrder, lanes: usize, all: &mut [f32]) {
    let is_winograd = order == PanelOrder::Winograd;
    // Channels in a word.
    let paired = if order == PanelOrder::DirectPairs {
        2
    } else {
        1
    };
    let words = ic.div_ceil(paired);
    let taps = if is_winograd { 36 } else { k };
    let g_matrix = g_matrix();
    all.par_chunks_mut(PANEL * lanes * taps * words)
        .enumerate()
        .for_each(|(p, out)| {
            let width = out.len() / (taps * words);
            let first = p * PANEL * lanes;
            for (lane, o) in (first..oc.min(first + width)).enumerate() {
                for i in 0..ic {
                    let g = &w[(o * ic + i) * k..][..k];
                    if is_winograd {
                        for (xi, u) in transform(&g_matrix, g).into_iter().enumerate() {
                            out[(xi * ic + i) * width + lane] = u;
                        }
                    } else {
                        let (block, in_block) = (i / lanes, i % lanes);
                        let block_words = lanes.min(ic - block * lanes).div_ceil(paired);
                        let first = block * lanes / paired * taps;
                        for (tap, &v) in g.iter().enumerate() {
                            let word = first + tap * block_words + in_block / paired;
                            let word = &mut out[word * width + lane];
                            *word = match order {
                                PanelOrder::DirectPairs => with_half(*word, in_block % 2, v),
                                _ => v,
                            };
                        }
                    }
                }
            }
        });
}

/// The word with its low (0) or high (1) half replaced by `v`, which is a bf16.
fn with_half(word: f32, half: usize, v: f32) -> f32 {
    let bits = v.to_bits() >> 16;
    f32::from_bits(match half {
        0 => word.to_bits() & 0xffff_0000 | bits,
        _ => word.to_bits() & 0xffff | bits << 16,
    })
}

/// G: row i is (1, p, p²)/N for the point p, where N is the product of its distances to the other finite points. The last
/// row, that of ∞, is (0, 0, 1).
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

/// G·g·Gᵀ, computed in f64 and rounded once.
fn transform(g_matrix: &[[f64; 3]; 6], g: &[f32]) -> [f32; 36] {
    let dot = |row: &[f64; 3], x: [f64; 3]| row[0] * x[0] + row[1] * x[1] + row[2] * x[2];
    let rows = g_matrix
        .map(|row| [0, 1, 2].map(|x| dot(&row, [0, 1, 2].map(|y| f64::from(g[y * 3 + x])))));
    std::array::from_fn(|xi| dot(&g_matrix[xi % 6], rows[xi / 6]) as f32)
}
