//! Norms and softmax of strided rows, with parameters of other dtypes.

use crate::support::{FLOATS, Pair, sizes, tensor};
use xdit_kernels::{
    DType, Device, Tensor, TensorMut, View,
    norm::{layer_norm, layer_norm_into, layer_norm_modulate, layer_norm_shift, rms_norm},
    softmax::softmax,
};

/// [b, l, c] out of a longer last dim.
pub(crate) fn part(
    shape: [usize; 3],
    margin: usize,
    dtype: DType,
    seed: usize,
    device: &Device,
) -> Tensor {
    tensor(
        &[shape[0], shape[1], shape[2] + margin],
        dtype,
        seed,
        device,
    )
}

pub(crate) fn inner<'a>(x: &'a Tensor, margin: usize, c: usize) -> View<'a> {
    x.view().narrow(2, margin / 2, c).unwrap()
}

/// Shapes whose rows are whole vectors and shapes whose rows are not, with and without a margin.
const SHAPES: [([usize; 3], usize); 4] = [
    ([2, 3, 64], 0),
    ([2, 3, 24], 16),
    ([2, 2, 7], 3),
    ([1, 2, 130], 1),
];

/// Rows of models, on many blocks.
const LARGE: [([usize; 3], usize); 2] = [([2, 301, 3072], 16), ([1, 97, 1153], 3)];

pub(crate) fn shapes() -> Vec<([usize; 3], usize)> {
    sizes(&SHAPES, &LARGE)
}

#[test]
#[ignore = "needs a GPU"]
fn norms_and_softmax() {
    let pair = Pair::new();
    for dtype in FLOATS {
        for other in [dtype, DType::F32, DType::F16] {
            for (shape, margin) in shapes() {
                let [b, _, c] = shape;
                let x = |device: &Device| part(shape, margin, dtype, 1, device);
                let weight = |device: &Device| tensor(&[c], other, 2, device);
                // Chunks of a longer projection.
                let chunks = |device: &Device| tensor(&[b, 3 * c], other, 3, device);
                pair.same("layer_norm", |device| {
                    let (x, w) = (x(device), weight(device));
                    layer_norm(inner(&x, margin, c), Some(w.view()), Some(w.view()), 1e-5)
                });
                pair.same("layer_norm_modulate", |device| {
                    let (x, m) = (x(device), chunks(device));
                    let (shift, scale) = (m.view().narrow(1, 0, c)?, m.view().narrow(1, 2 * c, c)?);
                    layer_norm_modulate(inner(&x, margin, c), shift, scale, 1e-5)
                });
                pair.same("layer_norm_shift", |device| {
                    let (x, w, m) = (x(device), weight(device), chunks(device));
                    layer_norm_shift(inner(&x, margin, c), &w, m.view().narrow(1, c, c)?, 1e-5)
                });
                pair.same("rms_norm", |device| {
                    let (x, w) = (x(device), weight(device));
                    rms_norm(inner(&x, margin, c), Some(w.view()), 1e-5)
                });
                pair.same("softmax", |device| softmax(inner(&x(device), margin, c)));
            }
        }
    }
    // A row for each block, kept in registers; columns, which are copied first; an output that is a part.
    pair.same("wide", |d| {
        layer_norm(&tensor(&[2, 3072], DType::BF16, 1, d), None, None, 1e-5)
    });
    pair.same("wide", |d| softmax(&tensor(&[2, 9000], DType::F32, 1, d)));
    pair.same("columns", |d| {
        layer_norm(
            tensor(&[5, 9], DType::F32, 1, d).view().transpose(0, 1)?,
            None,
            None,
            1e-5,
        )
    });
    pair.same("part", |device| {
        let x = tensor(&[2, 5], DType::F32, 1, device);
        let mut out = TensorMut::zeros([2, 9], DType::F32, device)?;
        layer_norm_into(&x, None, None, 1e-5, out.view_mut().narrow(1, 3, 5)?)?;
        Ok(out.freeze())
    });
}
