use super::*;
use crate::testing::test_devices;
use crate::{DType, Device};
use proptest::prelude::*;

fn check(rows: usize, c: usize, spread: f32, dtype: DType, device: &Device) {
    let data: Vec<f32> = (0..rows * (c + 1))
        .map(|i| (((i * 7919) % 2003) as f32 / 1000.0 - 1.0) * spread)
        .collect();
    let wide = Tensor::from_slice(&data, [rows, c + 1], device)
        .unwrap()
        .to_dtype(dtype)
        .unwrap();
    let x = wide.view().narrow(1, 0, c).unwrap();
    let got = softmax(x).unwrap().to_vec_blocking::<f32>().unwrap();
    let x = x.to_tensor().unwrap().to_vec_blocking::<f32>().unwrap();
    for (r, (x, got)) in x.chunks(c).zip(got.chunks(c)).enumerate() {
        let e: Vec<f64> = x.iter().map(|&v| f64::from(v).exp()).collect();
        let sum: f64 = e.iter().sum();
        let highest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Relative: the exponential's 3e-7 twice and the sum's rounding; f16 has no normal number below 6e-5.
        let (relative, absolute) = match dtype {
            DType::F32 => (1.5e-6, 1e-30),
            DType::BF16 => (2f64.powi(-8) + 1e-6, 1e-30),
            _ => (2f64.powi(-11) + 1e-6, 3e-8),
        };
        for i in 0..c {
            let want = e[i] / sum;
            // The difference to the maximum is rounded before its exponential.
            let relative = relative + 6e-8 * f64::from(highest - x[i]);
            let diff = (f64::from(got[i]) - want).abs();
            assert!(
                diff <= relative * want + absolute,
                "{dtype} {device} row {r} of {c}, {i}: {} not {want}",
                got[i]
            );
        }
    }
}

proptest! {
    #[test]
    fn equals_the_oracle(
        rows in 1usize..5, c in 1usize..150, spread in prop::sample::select(vec![0.1f32, 3.0, 30.0]),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        for device in &test_devices() {
            check(rows, c, spread, dtype, device);
        }
    }
}

#[test]
fn many_long_rows() {
    for device in &test_devices() {
        check(300, 777, 5.0, DType::F32, device);
    }
}

#[test]
fn extremes() {
    let low = f32::NEG_INFINITY;
    for device in &test_devices() {
        // A row longer than a vector, its special value in the tail or not.
        for at in [3, 19] {
            let run = |value: f32, rest: f32| {
                let mut x = [rest; 20];
                x[at] = value;
                let view = View::from_slice(&x, [1, 20], device).unwrap();
                softmax(view).unwrap().to_vec_blocking::<f32>().unwrap()
            };
            let y = run(low, 1e4);
            assert!(
                y[at] == 0.0 && (y[0] - 1.0 / 19.0).abs() <= 1e-7,
                "{device} masked: {y:?}"
            );
            let y = run(2.0, low);
            assert!(y[at] == 1.0 && y[0] == 0.0, "{device} one key: {y:?}");
            let y = run(3e38, -3e38);
            assert!(y[at] == 1.0 && y[0] == 0.0, "{device} huge: {y:?}");
            for y in [run(low, low), run(f32::NAN, 0.0), run(f32::INFINITY, 0.0)] {
                assert!(y[at].is_nan(), "{device}: torch gives NaN, not {}", y[at]);
            }
            assert!(
                run(f32::NAN, 0.0).iter().all(|v| v.is_nan()),
                "{device}: the sum is NaN"
            );
        }
    }
}
