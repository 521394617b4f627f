use super::*;
use crate::testing::test_devices;
use crate::{DType, Device};
use proptest::prelude::*;

const ALL: [Activation; 5] = [
    Activation::GeluTanh,
    Activation::GeluErf,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
];

/// Φ by its series around 0 (Abramowitz and Stegun 26.2.11); absolute error below 1e-14 for |x| < 7.
fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 7.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while term.abs() > 1e-18 {
        k += 2.0;
        term *= x * x / k;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn oracle(act: Activation, x: f64) -> f64 {
    match act {
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }
        Activation::GeluErf => x * normal_cdf(x),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
    }
}

/// f32: the power is good to 3e-7 and is scaled by at most |x|/4 plus the rounding of the result; 16-bit types round the
/// result once (2^-8 and 2^-11 relative).
fn tolerance(dtype: DType, want: f64) -> f64 {
    let half_ulp = match dtype {
        DType::F32 => 2e-7,
        DType::BF16 => 2f64.powi(-8) * 1.01,
        _ => 2f64.powi(-11) * 1.01,
    };
    half_ulp * want.abs() + 2e-7
}

fn check(act: Activation, data: &[f32], shape: [usize; 2], dtype: DType, device: &Device) {
    let x = Tensor::from_slice(data, shape, device)
        .unwrap()
        .to_dtype(dtype)
        .unwrap();
    // Every second column: a view with strides.
    let wide = Tensor::cat(&[x.view(), x.view()], 1).unwrap();
    let view = wide.view().narrow(1, shape[1] / 2, shape[1]).unwrap();
    let rows = view.to_tensor().unwrap().to_vec_blocking::<f32>().unwrap();
    let got = activation(view, act).unwrap();
    let y = x.view();
    let both = gated(view, y, act)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    for (i, ((g, x), y)) in got
        .to_vec_blocking::<f32>()
        .unwrap()
        .iter()
        .zip(&rows)
        .zip(x.to_vec_blocking::<f32>().unwrap())
        .enumerate()
    {
        let want = oracle(act, f64::from(*x));
        let tol = tolerance(dtype, want);
        assert!(
            (f64::from(*g) - want).abs() <= tol,
            "{act:?} {dtype} {device} at {i}: {g} not {want} for {x}"
        );
        let want = want * f64::from(y);
        let tol = tolerance(dtype, want) + 2e-7 * f64::from(y).abs();
        assert!(
            (f64::from(both[i]) - want).abs() <= tol,
            "gated {act:?} {dtype} {device} at {i}: {} not {want}",
            both[i]
        );
    }
}

proptest! {
    #[test]
    fn equals_the_oracle(
        rows in 1usize..5, columns in 1usize..70, which in 0usize..5,
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]), seed in 0u32..1000,
    ) {
        let data: Vec<f32> = (0..rows * columns)
            .map(|i| ((i as u32 * 7919 + seed * 104_729) % 2003) as f32 * 0.01 - 10.0)
            .collect();
        for device in &test_devices() {
            check(ALL[which], &data, [rows, columns], dtype, device);
        }
    }
}

#[test]
fn dense_grid_in_f32() {
    let data: Vec<f32> = (-60_000..60_000).map(|i| i as f32 * 2e-4).collect();
    for device in &test_devices() {
        for act in ALL {
            check(act, &data, [1, data.len()], DType::F32, device);
        }
    }
}

/// torch gives x, -0 and 0 here; at -inf it gives NaN for all but relu, and no value is promised.
#[test]
fn extremes() {
    let x = [1e4f32, -1e4, 0.0, f32::INFINITY, f32::NAN, 3e38, -3e38];
    for device in &test_devices() {
        let view = View::from_slice(&x, [7], device).unwrap();
        for act in ALL {
            let y = activation(view, act)
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap();
            assert_eq!(
                (y[0], y[2], y[3], y[5]),
                (1e4, 0.0, f32::INFINITY, 3e38),
                "{act:?} {device}"
            );
            // 256 / 2^125, where both are bounded.
            assert!(y[1].abs() <= 1e-35, "{act:?} {device}: {}", y[1]);
            assert!(y[4].is_nan(), "{act:?} {device}: NaN became {}", y[4]);
            assert!(y[6].abs() <= 1e-35, "{act:?} {device}: {}", y[6]);
        }
    }
}

#[test]
fn shapes_must_agree() {
    for device in &test_devices() {
        let x = Tensor::zeros([2, 3], DType::F32, device).unwrap();
        let y = Tensor::zeros([3, 2], DType::F32, device).unwrap();
        assert!(gated(&x, &y, Activation::Silu).is_err());
        let mut out = TensorMut::zeros([2, 3], DType::BF16, device).unwrap();
        assert!(activation_into(&x, Activation::Silu, out.view_mut()).is_err());
    }
}
