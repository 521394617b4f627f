mod scalars;

use super::*;
use crate::DType;
use crate::testing::{FLOATS, tensor, test_devices};
use proptest::prelude::*;

/// One rounding of the product and one of the sum in f32, then the output's.
fn assert_close(got: f32, want: f64, terms: f64, dtype: DType, what: &str) {
    // f16 also has steps of 2^-24 near 0.
    let (relative, absolute) = match dtype {
        DType::F32 => (0.0, 0.0),
        DType::BF16 => (2f64.powi(-8), 0.0),
        _ => (2f64.powi(-11), 3e-8),
    };
    let tol = relative * want.abs() + absolute + 1.3e-7 * terms;
    assert!(
        (f64::from(got) - want).abs() <= tol,
        "{what}: {got} not {want}"
    );
}

proptest! {
    #[test]
    fn binary_operations_equal_scalars(
        a in 1usize..4, b in 1usize..5, c in 1usize..60, suffix in 0usize..3, xd in 0usize..3, yd in 0usize..3,
    ) {
        let (xd, yd) = (FLOATS[xd], FLOATS[yd]);
        for device in &test_devices() {
            let wide = tensor(&[a, b, c + 2], xd, 1, device);
            let y = tensor(&[a, b, c][suffix..], yd, 2, device);
            let x = wide.view().narrow(2, 1, c).unwrap();
            let results = [
                add(x, &y).unwrap(), sub(x, &y).unwrap(), mul(x, &y).unwrap(), add_scaled(x, &y, -0.3).unwrap(),
                scale(x, 1.7).unwrap(),
            ].map(|t| (t.dtype(), t.to_vec_blocking::<f32>().unwrap()));
            let (xs, ys) = (x.to_tensor().unwrap().to_vec_blocking::<f32>().unwrap(), y.to_vec_blocking::<f32>().unwrap());
            for i in 0..xs.len() {
                let (x, y) = (f64::from(xs[i]), f64::from(ys[i % ys.len()]));
                let a = f64::from(-0.3f32);
                let want = [x + y, x - y, x * y, x + a * y, x * f64::from(1.7f32)];
                for (op, (w, (dtype, got))) in want.iter().zip(&results).enumerate() {
                    prop_assert_eq!(*dtype, xd);
                    assert_close(got[i], *w, x.abs() + y.abs() + w.abs(), xd, &format!("{device} op {op} {xd} {yd} at {i}"));
                }
            }
        }
    }

    #[test]
    fn gate_residual_equals_scalars(
        b in 1usize..4, l in 1usize..5, c in 1usize..70, xd in 0usize..3, rd in 0usize..3, gd in 0usize..3,
    ) {
        for device in &test_devices() {
            let (x, gate) = (tensor(&[b, l, c], FLOATS[xd], 1, device), tensor(&[b, c], FLOATS[gd], 2, device));
            let wide = tensor(&[b, l + 1, c], FLOATS[rd], 3, device);
            let residual = wide.view().narrow(1, 1, l).unwrap();
            let got = gate_residual(x.view(), &gate, residual).unwrap();
            prop_assert_eq!(got.dtype(), FLOATS[rd]);
            let r = residual.to_tensor().unwrap().to_vec_blocking::<f32>().unwrap();
            let (got, x, g) = (got.to_vec_blocking::<f32>().unwrap(), x.to_vec_blocking::<f32>().unwrap(), gate.to_vec_blocking::<f32>().unwrap());
            for i in 0..r.len() {
                let (r, product) = (f64::from(r[i]), f64::from(x[i]) * f64::from(g[i / (l * c) * c + i % c]));
                assert_close(got[i], r + product, r.abs() + product.abs(), FLOATS[rd], &format!("{device} at {i}"));
            }
        }
    }
}

/// Tasks cut long rows; what lies where must not depend on it.
#[test]
fn large_and_transposed_operands() {
    for device in &test_devices() {
        let (x, y) = (
            tensor(&[700, 513], DType::F32, 1, device),
            tensor(&[513, 700], DType::F32, 2, device),
        );
        let got = add(&x, y.view().transpose(0, 1).unwrap())
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap();
        let (x, y) = (
            x.to_vec_blocking::<f32>().unwrap(),
            y.to_vec_blocking::<f32>().unwrap(),
        );
        for (i, g) in got.iter().enumerate() {
            assert_eq!(*g, x[i] + y[i % 513 * 700 + i / 513], "at {i}");
        }
    }
}

/// torch computes `sample + dt * output` with two roundings: bit-equal in f32.
#[test]
fn a_scheduler_step_rounds_as_torch_does() {
    for device in &test_devices() {
        let (x, y) = (
            tensor(&[4099], DType::F32, 1, device),
            tensor(&[4099], DType::F32, 2, device),
        );
        let got = add_scaled(&x, &y, -0.033_7)
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap();
        for (i, (x, y)) in x
            .to_vec_blocking::<f32>()
            .unwrap()
            .iter()
            .zip(y.to_vec_blocking::<f32>().unwrap())
            .enumerate()
        {
            assert_eq!(got[i], x + -0.033_7 * y, "at {i}");
        }
    }
}

#[test]
fn nan_and_infinity_pass_through() {
    for device in &test_devices() {
        let x = Tensor::from_slice(&[f32::NAN, f32::INFINITY, 1.0], [1, 1, 3], device).unwrap();
        let one = Tensor::from_slice(&[1f32; 3], [1, 1, 3], device).unwrap();
        let gate = one.reshape([1, 3]).unwrap();
        for y in [
            add(&x, &one),
            add(&one, &x),
            mul(&one, &x),
            gate_residual(&x, &gate, &one),
            gate_residual(&one, &gate, &x),
        ] {
            let y = y.unwrap().to_vec_blocking::<f32>().unwrap();
            assert!(
                y[0].is_nan() && y[1] == f32::INFINITY && y[2].is_finite(),
                "{y:?}"
            );
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    for device in &test_devices() {
        let x = tensor(&[1, 2, 3], DType::F32, 0, device);
        assert!(add(&x, &tensor(&[2], DType::F32, 0, device)).is_err());
        assert!(add(&tensor(&[3], DType::F32, 0, device), &x).is_err());
        let gate = tensor(&[1, 2], DType::F32, 0, device);
        let e = gate_residual(&x, &gate, &x).unwrap_err().to_string();
        assert!(e.contains("gate_residual") && e.contains("[1, 3]"), "{e}");
        assert!(gate_residual(&gate, &gate, &x).is_err());
        let mut out = TensorMut::zeros([1, 2, 4], DType::F32, device).unwrap();
        assert!(scale_into(&x, 2.0, out.view_mut()).is_err());
    }
}

#[test]
fn nothing_in_is_nothing_out() {
    for device in &test_devices() {
        for shape in [[2, 0, 3], [0, 2, 3], [2, 3, 0]] {
            let x = tensor(&shape, DType::F32, 0, device);
            let sum = add_scaled(&x, &x, 2.0).unwrap();
            assert_eq!(sum.shape(), shape);
            assert_eq!(scale(&x, 2.0).unwrap().shape(), shape);
        }
    }
}
