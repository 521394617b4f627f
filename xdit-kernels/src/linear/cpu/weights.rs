//! Packs the weights of a linear layer for the register tile: panels of NR outputs, k by k.

use crate::{
    DType, Device, Result, Tensor, TensorMut, Tier, View,
    dtype::FloatType,
    layout,
    rows::Floats,
    simd::{
        Lane, Shared, Simd,
        microkernel::{pair_group, tile_shape},
        tiered,
        transpose::{MAX_LANES, Transpose},
    },
    vector::reserved,
};
use half::{bf16, f16};
use rayon::prelude::*;

/// The weights and the bias of a layer. Weights `[n, k]` are held as `[n / NR][k][NR]` of f32 or f16, or as
/// `[n / NR][k / 2][NR][2]` of bf16, on [`Tier::NeonBf16`] `[n / NR][k / 4][NR][4]`; zeros pad n to whole panels, and k of bf16 to
/// whole pairs or fours.
#[derive(Debug)]
pub(in crate::linear) struct PackedLinear {
    panels: Tensor,
    /// One value for each output, zeros where there is no bias and in the padding.
    pub(super) bias: Vec<f32>,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) nr: usize,
    pub(super) dtype: FloatType,
    pub(super) tier: Tier,
}

/// k rounded up to the number that a panel of this dtype holds.
fn padded_k(k: usize, dtype: FloatType, tier: Tier) -> usize {
    if dtype == FloatType::BF16 {
        k.next_multiple_of(2 * pair_group(tier))
    } else {
        k
    }
}

impl PackedLinear {
    /// The layers of the parts, their outputs one after another: weights `[_, k]` and biases, `n` outputs in all. The caller
    /// has checked the shapes.
    pub(in crate::linear) fn new(
        parts: &[(View<'_>, Option<View<'_>>)],
        [n, k]: [usize; 2],
        dtype: FloatType,
        device: &Device,
    ) -> Result<Self> {
        let tier = device.tier();
        let (_, nr) = tile_shape(tier);
        let (count, deep) = (n.div_ceil(nr), padded_k(k, dtype, tier));
        // SAFETY: `fill` below writes every element of every panel.
        let mut panels = unsafe {
            TensorMut::uninit("linear weights", [count, deep, nr], dtype.dtype(), device)?
        };
        let out = Shared(panels.view_mut().ptr());
        let mut sources = Vec::with_capacity(parts.len());
        let mut first = 0;
        for &(weight, _) in parts {
            sources.push(Source::new(first, weight)?);
            first += weight.dim(0);
        }
        // Panels of no k are nothing to write.
        let panels_to_fill = if k == 0 { 0 } else { count };
        (0..panels_to_fill).into_par_iter().for_each(|p| {
            let row = |j| {
                sources
                    .iter()
                    .find_map(|s| s.row(p * nr + j))
                    .unwrap_or(Row::Zeros)
            };
            let rows: Vec<Row> = (0..nr).map(row).collect();
            // SAFETY: panel p is `deep · nr` elements from p · deep · nr of a buffer of `count` such panels; each task
            // writes its own. The rows are those of views, k elements each.
            unsafe {
                let at = p * deep * nr;
                match dtype {
                    FloatType::F32 => fill::<f32>(tier, &rows, k, out.ptr().cast::<f32>().add(at)),
                    FloatType::F16 => fill::<f16>(tier, &rows, k, out.ptr().cast::<f16>().add(at)),
                    FloatType::BF16 => {
                        fill::<bf16>(tier, &rows, k, out.ptr().cast::<bf16>().add(at))
                    }
                }
            }
        });
        Ok(Self {
            panels: panels.freeze(),
            bias: padded_bias(parts, dtype, n.next_multiple_of(nr))?,
            n,
            k,
            nr,
            dtype,
            tier,
        })
    }

    /// Outputs, rounded up to whole panels.
    pub(super) fn padded_n(&self) -> usize {
        self.n.next_multiple_of(self.nr)
    }

    /// Bytes of panels and bias.
    pub(in crate::linear) fn byte_len(&self) -> usize {
        self.panels.byte_len() + self.bias.len() * size_of::<f32>()
    }

    /// Start of the packed elements; panel p is `panel_len` elements from `p · panel_len`.
    pub(super) fn ptr(&self) -> *const u8 {
        self.panels.view().ptr()
    }

    /// k of a panel, padding included.
    pub(super) fn deep(&self) -> usize {
        padded_k(self.k, self.dtype, self.tier)
    }
}

/// The biases of the parts one after another, zeros where a part has none, padded with zeros to `len`.
fn padded_bias(
    parts: &[(View<'_>, Option<View<'_>>)],
    dtype: FloatType,
    len: usize,
) -> Result<Vec<f32>> {
    let mut values = reserved("linear bias", len)?;
    for (weight, bias) in parts {
        match bias {
            // Rounded to the dtype of the weights, as in a torch module that is cast to it.
            Some(bias) => values.extend_from_slice(&Floats::new(
                "linear",
                layout::cast(*bias, dtype.dtype())?.view(),
                bias.shape(),
            )?),
            None => values.resize(values.len() + weight.dim(0), 0.0),
        }
    }
    values.resize(len, 0.0);
    Ok(values)
}

/// One of the weights that are packed together, the output that its first row computes, and a copy of it if the elements of
/// its rows are not adjacent.
struct Source<'a> {
    first: usize,
    view: View<'a>,
    dtype: FloatType,
    copy: Option<Tensor>,
}

impl<'a> Source<'a> {
    fn new(first: usize, view: View<'a>) -> Result<Self> {
        let adjacent = view.strides()[1] == 1 || view.dim(1) < 2;
        Ok(Self {
            first,
            view,
            dtype: view.dtype().float("linear")?,
            copy: if adjacent {
                None
            } else {
                Some(view.to_tensor()?)
            },
        })
    }

    /// The weights of output `row`, if it is an output of this part.
    fn row(&self, row: usize) -> Option<Row> {
        let view = self.copy.as_ref().map_or(self.view, Tensor::view);
        let inside = row.checked_sub(self.first).filter(|&i| i < view.dim(0))?;
        let at = view
            .ptr()
            .wrapping_add(inside * view.strides()[0] * view.dtype().size());
        Some(match self.dtype {
            FloatType::F32 => Row::F32(at.cast()),
            FloatType::F16 => Row::F16(at.cast()),
            FloatType::BF16 => Row::Bf16(at.cast()),
        })
    }
}

/// The weights of one output.
#[derive(Clone, Copy)]
enum Row {
    F32(*const f32),
    F16(*const f16),
    Bf16(*const bf16),
    /// Beyond the last output.
    Zeros,
}

impl Row {
    /// # Safety
    /// The row has `n` elements from `at`, at most LANES.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, at: usize, n: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(p) => f32::load_n::<S>(p.add(at), n),
                Self::F16(p) => f16::load_n::<S>(p.add(at), n),
                Self::Bf16(p) => bf16::load_n::<S>(p.add(at), n),
                Self::Zeros => S::zero(),
            }
        }
    }

    /// As many pairs of bf16 as a vector has lanes, zeros behind `n` elements.
    ///
    /// # Safety
    /// The row has `n` elements from `at`, at most 2·LANES.
    #[inline(always)]
    unsafe fn load_pairs<S: Simd>(self, at: usize, n: usize) -> S::V {
        let mut pairs = [bf16::ZERO; 2 * MAX_LANES];
        // SAFETY: the caller's promise; `pairs` has room for 2·LANES.
        unsafe {
            match self {
                Self::Bf16(p) if n == 2 * S::LANES => return S::load(p.add(at).cast()),
                Self::Bf16(p) => p.add(at).copy_to_nonoverlapping(pairs.as_mut_ptr(), n),
                _ => {
                    let first = n.min(S::LANES);
                    bf16::store_n::<S>(pairs.as_mut_ptr(), first, self.load::<S>(at, first));
                    bf16::store_n::<S>(
                        pairs.as_mut_ptr().add(first),
                        n - first,
                        self.load::<S>(at + first, n - first),
                    );
                }
            }
            S::load(pairs.as_ptr().cast())
        }
    }
}

/// Packs NR rows of `k` elements into a panel.
///
/// # Safety
/// There are `NR` rows of `k` elements; `out` has room for `k · NR` that nobody else touches (k rounded up to whole pairs
/// for bf16).
#[inline(always)]
unsafe fn fill_body<S: Transpose, D: Lane>(rows: &[Row], k: usize, out: *mut D) {
    let paired = D::DTYPE == DType::BF16;
    if paired && S::PAIR_GROUP == 2 {
        // SAFETY: the caller's promise.
        return unsafe { fill_groups::<S>(rows, k, out.cast()) };
    }
    // Elements of a row in one vector.
    let step = if paired { 2 * S::LANES } else { S::LANES };
    for (half, rows) in rows.chunks_exact(S::LANES).enumerate() {
        for at in (0..k).step_by(step) {
            let n = step.min(k - at);
            // SAFETY: n elements from `at` are inside each row; a line of the panel has NR words, two vectors.
            unsafe {
                let mut square = [S::zero(); MAX_LANES];
                for (&row, v) in rows.iter().zip(&mut square) {
                    *v = if paired {
                        row.load_pairs::<S>(at, n)
                    } else {
                        row.load::<S>(at, n)
                    };
                }
                S::transpose(&mut square);
                let place = |line: usize| line * rows.len() * 2 + half * S::LANES;
                if paired {
                    for (j, &v) in square.iter().enumerate().take(n.div_ceil(2)) {
                        S::store(out.cast::<f32>().add(place(at / 2 + j)), v);
                    }
                } else {
                    for (j, &v) in square.iter().enumerate().take(n) {
                        D::store::<S>(out.add(place(at + j)), v);
                    }
                }
            }
        }
    }
}
tiered!(fn fill[D: Lane][D](rows: &[Row], k: usize, out: *mut D) = fill_body);

/// As [`fill_body`], in groups of four bf16: four of each row stand next to each other.
///
/// # Safety
/// As there, k rounded up to whole groups.
#[inline(always)]
unsafe fn fill_groups<S: Simd>(rows: &[Row], k: usize, out: *mut [bf16; 4]) {
    for at in (0..k).step_by(2 * S::LANES) {
        let n = (2 * S::LANES).min(k - at);
        for (i, row) in rows.iter().enumerate() {
            let mut fours = [[bf16::ZERO; 4]; MAX_LANES / 2];
            // SAFETY: n elements from `at` are inside the row; line g of the panel is a group of each row.
            unsafe {
                S::store(fours.as_mut_ptr().cast(), row.load_pairs::<S>(at, n));
                for (g, four) in fours.iter().enumerate().take(n.div_ceil(4)) {
                    out.add((at / 4 + g) * rows.len() + i).write(*four);
                }
            }
        }
    }
}
