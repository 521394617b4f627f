//! Elementwise operations, activations and gates of strided operands, in every pair of dtypes.

use crate::{
    rows::{inner, part, shapes},
    support::{FLOATS, Pair, tensor},
};
use xdit_kernels::{
    Device,
    activation::{Activation, activation, gated},
    elementwise::{
        add, add_scaled, clamp, divide, gate_residual, mul, scale, scale_shift, sub, weighted_sum,
    },
};

#[test]
#[ignore = "needs a GPU"]
fn elements() {
    let pair = Pair::new();
    for dtype in FLOATS {
        for (shape, margin) in shapes() {
            let [b, _, c] = shape;
            let x = |device: &Device| part(shape, margin, dtype, 1, device);
            for other in FLOATS {
                pair.same("add, last dims", |device| {
                    add(
                        inner(&x(device), margin, c),
                        &tensor(&[c], other, 2, device),
                    )
                });
                pair.same("weighted_sum", |device| {
                    let y = part(shape, margin, other, 2, device);
                    weighted_sum(
                        inner(&x(device), margin, c),
                        0.7,
                        inner(&y, margin, c),
                        -1.3,
                    )
                });
                pair.same("gate_residual", |device| {
                    let (y, gate) = (
                        part(shape, margin, other, 2, device),
                        tensor(&[b, 2 * c], other, 3, device),
                    );
                    let gate = gate.view().narrow(1, c, c)?;
                    gate_residual(inner(&y, margin, c), gate, inner(&x(device), margin, c))
                });
                pair.same("gated", |device| {
                    let y = part(shape, margin, other, 2, device);
                    gated(
                        inner(&x(device), margin, c),
                        inner(&y, margin, c),
                        Activation::GeluErf,
                    )
                });
            }
            let y = |device: &Device| part(shape, margin, dtype, 2, device);
            pair.same("sub", |d| {
                sub(inner(&x(d), margin, c), inner(&y(d), margin, c))
            });
            pair.same("mul", |d| {
                mul(inner(&x(d), margin, c), inner(&y(d), margin, c))
            });
            pair.same("add_scaled", |d| {
                add_scaled(inner(&x(d), margin, c), inner(&y(d), margin, c), 0.4)
            });
            pair.same("scale", |d| scale(inner(&x(d), margin, c), -0.3));
            pair.same("divide", |d| divide(inner(&x(d), margin, c), 0.7));
            pair.same("clamp", |d| clamp(inner(&x(d), margin, c), -1.5, 2.0));
            pair.same("scale_shift", |d| {
                scale_shift(inner(&x(d), margin, c), 0.3, -0.2)
            });
            for act in [
                Activation::GeluTanh,
                Activation::QuickGelu,
                Activation::Silu,
                Activation::Relu,
            ] {
                pair.same("activation", |d| activation(inner(&x(d), margin, c), act));
            }
        }
    }
}
