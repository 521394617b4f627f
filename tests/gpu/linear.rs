//! Linear layers with each epilogue, over whole inputs, parts of a longer row, and inputs in two parts.

use crate::support::{FLOATS, Pair, Tolerance, sizes, tensor};
use xdit_kernels::{
    DType, Device, Result, Tensor, TensorMut,
    activation::Activation,
    linear::{Epilogue, Linear},
};

/// Rows, inputs, outputs. cuBLASLt plans each of them: one row, odd numbers, whole tiles.
const SMALL: [[usize; 3]; 4] = [[1, 16, 8], [5, 24, 40], [3, 7, 9], [34, 64, 130]];
const LARGE: [[usize; 3]; 2] = [[513, 3072, 1536], [77, 1153, 4099]];

/// Sums of k products of which each is at most as great as the result's greatest number, in another order. In 16 bits a
/// product may be rounded before the epilogue as well as after it.
fn tolerance(dtype: DType) -> Tolerance {
    Tolerance {
        of_greatest: 1e-5 + 2.0 * Tolerance::step(dtype),
        neighbours: 0.0,
    }
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    Activation(Activation),
    Residual,
    GateResidual,
    Mul,
}

const ALL: [Then; 7] = [
    Then::Nothing,
    Then::Activation(Activation::GeluTanh),
    Then::Activation(Activation::GeluErf),
    Then::Activation(Activation::Silu),
    Then::Residual,
    Then::GateResidual,
    Then::Mul,
];

/// Inputs are the middle of longer rows, or two tensors.
fn run(
    [l, k, n]: [usize; 3],
    then: Then,
    dtype: DType,
    parts: bool,
    device: &Device,
) -> Result<Tensor> {
    let weight = tensor(&[n, k], dtype, 1, device);
    let bias = tensor(&[n], dtype, 2, device);
    let layer = Linear::pack(weight.view(), Some(bias.view()), dtype, device)?;
    let long = tensor(&[2, l, k + 8], dtype, 3, device);
    let x = long.view().narrow(2, 8, k)?;
    let near = k / 2;
    let inputs = [x.narrow(2, 0, near)?, x.narrow(2, near, k - near)?];
    let inputs = if parts { &inputs[..] } else { &[x] };
    let other = tensor(&[2, l, n], dtype, 4, device);
    let gates = tensor(&[2, 3 * n], dtype, 5, device);
    let epilogue = match then {
        Then::Nothing => Epilogue::None,
        Then::Activation(activation) => Epilogue::Activation(activation),
        Then::Residual => Epilogue::Residual(other.view()),
        Then::GateResidual => Epilogue::GateResidual {
            gate: gates.view().narrow(1, n, n)?,
            residual: other.view(),
        },
        Then::Mul => Epilogue::Mul(other.view()),
    };
    let mut out = TensorMut::zeros([2, l + 1, n], dtype, device)?;
    layer.forward_into(inputs, epilogue, out.view_mut().narrow(1, 1, l)?)?;
    Ok(out.freeze())
}

#[test]
#[ignore = "needs a GPU"]
fn linear_layers() {
    let pair = Pair::new();
    for dtype in FLOATS {
        for shape in sizes(&SMALL, &LARGE) {
            for then in ALL {
                for parts in [false, true] {
                    let what = format!("{shape:?} {then:?} {dtype} {parts}");
                    pair.within(tolerance(dtype), &what, |device| {
                        run(shape, then, dtype, parts, device)
                    });
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn several_layers_of_one_input() {
    let pair = Pair::new();
    for dtype in FLOATS {
        pair.within(tolerance(dtype), "pack_rows", |device| {
            let weights = [[6, 16], [10, 16], [3, 16]];
            let weights = weights.map(|shape| tensor(&shape, dtype, shape[0], device));
            let bias = tensor(&[6], dtype, 9, device);
            let parts = [0, 1, 2].map(|i| (weights[i].view(), (i == 0).then(|| bias.view())));
            let layer = Linear::pack_rows(&parts, dtype, device)?;
            layer.forward(&tensor(&[7, 16], dtype, 4, device))
        });
    }
}
