//! Operations with scalars against plain f32 arithmetic: equal to the bit on every tier, since schedulers are to step as torch does.

use crate::elementwise::{add_scaled, clamp, divide, scale, scale_shift, weighted_sum};
use crate::testing::{FLOATS, floats, tensor, test_devices};
use crate::{DType, Tensor};
use proptest::prelude::*;

proptest! {
    #[test]
    fn each_operation_is_rounded_on_its_own(rows in 1usize..4, c in 1usize..80, dtype in 0usize..3, a in -3f32..3.0, b in 0.01f32..4.0) {
        let dtype = FLOATS[dtype];
        for device in &test_devices() {
            let (x, y) = (tensor(&[rows, c], dtype, 1, device), tensor(&[c], dtype, 2, device));
            let (xs, ys) = (floats(&x), floats(&y));
            let got = [
                add_scaled(&x, &y, a), weighted_sum(&x, a, &y, b), scale(&x, a), scale_shift(&x, a, b), divide(&x, b),
                clamp(&x, -b, b),
            ].map(|z| z.unwrap());
            let of = |f: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
                let values: Vec<f32> = xs.iter().enumerate().map(|(i, x)| f(*x, ys[i % c])).collect();
                // Rounded once more to the dtype.
                floats(&Tensor::from_slice(&values, [rows, c], device).unwrap().to_dtype(dtype).unwrap())
            };
            let want = [
                of(&|x, y| x + a * y), of(&|x, y| a * x + b * y), of(&|x, _| a * x), of(&|x, _| a * x + b), of(&|x, _| x / b),
                of(&|x, _| x.clamp(-b, b)),
            ];
            for (op, (got, want)) in got.iter().zip(want).enumerate() {
                prop_assert_eq!(got.dtype(), dtype);
                prop_assert_eq!(floats(got), want, "{} op {}", device, op);
            }
        }
    }
}

#[test]
fn limits_hold_infinities_and_leave_nan() {
    for (dtype, high) in [(DType::F32, 1e30), (DType::F16, 65504.0)] {
        let values = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0, 1.0];
        for device in &test_devices() {
            let x = Tensor::from_slice(&values, [5], device).unwrap();
            let y = floats(&clamp(&x.to_dtype(dtype).unwrap(), -high, high).unwrap());
            assert!(y[2].is_nan(), "{device} {dtype}");
            assert_eq!(y[..2], [high, -high], "{device} {dtype}");
            assert_eq!(y[3..], [0.0, 1.0], "{device} {dtype}");
            assert!(y[3].is_sign_negative(), "{device} {dtype}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    for device in &test_devices() {
        let (x, y) = (
            tensor(&[2, 3], DType::F32, 0, device),
            tensor(&[2], DType::F32, 0, device),
        );
        let error = weighted_sum(&x, 1.0, &y, 1.0).unwrap_err().to_string();
        assert!(error.contains("weighted_sum"), "{error}");
        let nothing = tensor(&[2, 0], DType::F32, 0, device);
        assert_eq!(divide(&nothing, 2.0).unwrap().shape(), [2, 0]);
    }
}
