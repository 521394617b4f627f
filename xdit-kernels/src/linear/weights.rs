//! Weights packed for the register tile: panels of NR outputs, k by k.

use crate::{
    DType, Device, Element, Error, Result, Tensor, TensorMut, View,
    simd::{Shared, microkernel::tile_shape},
};
use half::{bf16, f16};
use rayon::prelude::*;

/// k's that are summed in one chain before they are added to the sum of the blocks before them. The error of a sum
/// grows with the length of its chain; a block of B for one tile also stays in the cache near the core.
pub(super) const BLOCK: usize = 512;

/// Weights `[n, k]` as `[n / NR][k][NR]` of f32 or f16, or `[n / NR][k / 2][NR][2]` of bf16; n is padded with zeros to
/// whole panels, k of bf16 to whole pairs.
#[derive(Debug)]
pub(super) struct Weights {
    panels: Tensor,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) nr: usize,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

/// k rounded up to what a panel of this dtype holds.
fn padded_k(k: usize, dtype: DType) -> usize {
    if dtype == DType::BF16 {
        k.next_multiple_of(2)
    } else {
        k
    }
}

impl Weights {
    /// The parts' rows one after another. All are `[_, k]` (checked by the caller).
    pub(super) fn pack(parts: &[View<'_>], dtype: DType, device: Device) -> Result<Self> {
        let too_large = || Error::OutOfMemory {
            op: "linear weights",
            bytes: usize::MAX,
        };
        let k = parts.first().map_or(0, |w| w.dim(1));
        let n = parts
            .iter()
            .try_fold(0usize, |n, w| n.checked_add(w.dim(0)))
            .ok_or_else(too_large)?;
        let (_, nr) = tile_shape(device.tier());
        let (count, deep) = (n.div_ceil(nr), padded_k(k, dtype));
        // SAFETY: `fill` below writes every element of every panel.
        let mut panels =
            unsafe { TensorMut::uninit("linear weights", [count, deep, nr], dtype, device)? };
        let out = Shared(panels.view_mut().ptr());
        let sources: Vec<Source<'_>> = parts
            .iter()
            .scan(0, |first, &view| {
                *first += view.dim(0);
                Some(Source {
                    first: *first - view.dim(0),
                    view,
                })
            })
            .collect();
        (0..count).into_par_iter().for_each(|p| {
            // SAFETY: panel p is `deep · nr` elements from p · deep · nr of a buffer of `count` such panels; each task
            // writes its own.
            unsafe {
                let at = p * deep * nr;
                match dtype {
                    DType::F32 => fill::<f32>(
                        &sources,
                        p * nr,
                        nr,
                        k,
                        deep,
                        out.ptr().cast::<f32>().add(at),
                    ),
                    DType::F16 => fill::<f16>(
                        &sources,
                        p * nr,
                        nr,
                        k,
                        deep,
                        out.ptr().cast::<f16>().add(at),
                    ),
                    DType::BF16 => fill::<bf16>(
                        &sources,
                        p * nr,
                        nr,
                        k,
                        deep,
                        out.ptr().cast::<bf16>().add(at),
                    ),
                }
            }
        });
        Ok(Self {
            panels: panels.freeze(),
            n,
            k,
            nr,
            dtype,
            device,
        })
    }

    /// Outputs, rounded up to whole panels.
    pub(super) fn padded_n(&self) -> usize {
        self.n.next_multiple_of(self.nr)
    }

    pub(super) fn byte_len(&self) -> usize {
        self.panels.numel() * self.dtype.size()
    }

    /// Start of the packed elements; panel p is `panel_len` elements from `p · panel_len`.
    pub(super) fn ptr(&self) -> *const u8 {
        self.panels.view().ptr()
    }

    /// k of a panel, padding included.
    pub(super) fn deep(&self) -> usize {
        padded_k(self.k, self.dtype)
    }
}

/// One of the weights that are packed together, and the output that its first row is.
struct Source<'a> {
    first: usize,
    view: View<'a>,
}

/// Packs outputs `row0 .. row0 + nr` into one panel.
///
/// # Safety
/// `out` has room for `deep · nr` elements that nobody else touches.
unsafe fn fill<D: Element>(
    sources: &[Source<'_>],
    row0: usize,
    nr: usize,
    k: usize,
    deep: usize,
    out: *mut D,
) {
    for j in 0..nr {
        let row = row0 + j;
        let source = sources
            .iter()
            .rev()
            .find(|s| s.first <= row && row - s.first < s.view.dim(0));
        // SAFETY: the caller's promise; j < nr. The source's row is one of its view's.
        unsafe {
            match source {
                Some(Source { first, view }) => {
                    let at = (row - first) * view.strides()[0];
                    let step = view.strides()[1];
                    match view.dtype() {
                        DType::F32 => column::<f32, D>(
                            view.ptr().cast::<f32>().add(at),
                            step,
                            k,
                            deep,
                            nr,
                            j,
                            out,
                        ),
                        DType::F16 => column::<f16, D>(
                            view.ptr().cast::<f16>().add(at),
                            step,
                            k,
                            deep,
                            nr,
                            j,
                            out,
                        ),
                        DType::BF16 => column::<bf16, D>(
                            view.ptr().cast::<bf16>().add(at),
                            step,
                            k,
                            deep,
                            nr,
                            j,
                            out,
                        ),
                    }
                }
                None => column::<D, D>(out, 0, 0, deep, nr, j, out),
            }
        }
    }
}

/// One output's weights into column j of a panel, zeros behind them.
///
/// # Safety
/// `src` has `k` elements `step` apart; `out` is a panel of `deep · nr` elements, j < nr.
unsafe fn column<S: Element, D: Element>(
    src: *const S,
    step: usize,
    k: usize,
    deep: usize,
    nr: usize,
    j: usize,
    out: *mut D,
) {
    let paired = D::DTYPE == DType::BF16;
    for i in 0..deep {
        let to = if paired {
            (i / 2 * nr + j) * 2 + i % 2
        } else {
            i * nr + j
        };
        // SAFETY: i < k where `src` is read; `to` < deep · nr, deep being even where elements stand in pairs.
        unsafe {
            out.add(to).write(if i < k {
                D::from_f32((*src.add(i * step)).to_f32())
            } else {
                D::from_f32(0.0)
            })
        };
    }
}
