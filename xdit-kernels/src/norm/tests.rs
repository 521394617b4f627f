use super::*;
use crate::testing::test_devices;
use crate::{DType, Device};
use proptest::prelude::*;

/// Deterministic numbers around `mean` with a deviation near `std`.
fn data(n: usize, mean: f32, std: f32, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 + seed * 104_729 + i / 13) % 2003) as f32 / 2003.0 - 0.5)
        .map(|u| mean + u * std * 12f32.sqrt())
        .collect()
}

/// (x − mean)/√(var + eps) of each row, in f64.
fn layer_norm_oracle(x: &[f32], c: usize, eps: f64) -> Vec<f64> {
    x.chunks(c)
        .flat_map(|row| {
            let n = c as f64;
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let var = row
                .iter()
                .map(|&v| (f64::from(v) - mean).powi(2))
                .sum::<f64>()
                / n;
            row.iter()
                .map(move |&v| (f64::from(v) - mean) / (var + eps).sqrt())
        })
        .collect()
}

fn rms_norm_oracle(x: &[f32], c: usize, eps: f64) -> Vec<f64> {
    x.chunks(c)
        .flat_map(|row| {
            let square = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / c as f64;
            row.iter()
                .map(move |&v| f64::from(v) / (square + eps).sqrt())
        })
        .collect()
}

/// Half a unit in the last place of the output, relative; f32 also has the sums' error (about 2e-7) in each factor.
fn relative(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-6,
        DType::BF16 => 2f64.powi(-8) + 1e-6,
        _ => 2f64.powi(-11) + 1e-6,
    }
}

/// `scale` is the size of the terms whose sum is compared, where a result may cancel.
fn assert_close(got: &Tensor, want: &[f64], scale: f64, what: &str) {
    assert_eq!(got.numel(), want.len());
    let tol = relative(got.dtype());
    // f16 has steps of 2^-24 near 0.
    let step = if got.dtype() == DType::F16 { 3e-8 } else { 0.0 };
    for (i, (g, w)) in got
        .to_vec_blocking::<f32>()
        .unwrap()
        .iter()
        .zip(want)
        .enumerate()
    {
        let diff = (f64::from(*g) - w).abs();
        assert!(
            diff <= tol * w.abs() + 1e-6 * scale + step,
            "{what} at {i}: {g} not {w}"
        );
    }
}

/// [b, l, c] cut out of wider rows.
fn strided(wide: &Tensor, c: usize) -> View<'_> {
    wide.view().narrow(2, 1, c).unwrap()
}

fn check(b: usize, l: usize, c: usize, mean: f32, dtype: DType, device: &Device) {
    let what = format!("[{b}, {l}, {c}] mean {mean} {dtype} {device}");
    let wide = Tensor::from_slice(&data(b * l * (c + 3), mean, 1.0, c), [b, l, c + 3], device);
    let wide = wide.unwrap().to_dtype(dtype).unwrap();
    let x = strided(&wide, c);
    let rows = x.to_tensor().unwrap().to_vec_blocking::<f32>().unwrap();
    let shift = Tensor::from_slice(&data(b * c, 0.0, 1.0, 1), [b, c], device).unwrap();
    let scale = Tensor::from_slice(&data(b * c, 0.0, 1.0, 2), [b, c], device).unwrap();
    let normal = layer_norm_oracle(&rows, c, 1e-6);
    // |normal| ≤ √c ≤ the bound below; the deviations of the data stay within 2 of the mean.
    let got = layer_norm(x, None, None, 1e-6).unwrap();
    assert_close(&got, &normal, 2.0, &format!("layer_norm {what}"));

    let (scales, shifts) = (
        scale.to_vec_blocking::<f32>().unwrap(),
        shift.to_vec_blocking::<f32>().unwrap(),
    );
    let modulated: Vec<f64> = normal
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let at = i / (l * c) * c + i % c;
            v * (1.0 + f64::from(scales[at])) + f64::from(shifts[at])
        })
        .collect();
    let got = layer_norm_modulate(x, &shift, &scale, 1e-6).unwrap();
    assert_close(&got, &modulated, 8.0, &format!("modulate {what}"));

    // Parameters of another dtype and with strides.
    let weight = scale.to_dtype(DType::BF16).unwrap();
    let weight = weight.view().select(0, b - 1).unwrap();
    let weights = weight
        .to_tensor()
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    let bias = shift.view().select(0, 0).unwrap();
    let affine: Vec<f64> = normal
        .iter()
        .enumerate()
        .map(|(i, v)| v * f64::from(weights[i % c]) + f64::from(shifts[i % c]))
        .collect();
    let got = layer_norm(x, Some(weight), Some(bias), 1e-6).unwrap();
    assert_close(&got, &affine, 8.0, &format!("affine {what}"));
    let shifted: Vec<f64> = normal
        .iter()
        .enumerate()
        .map(|(i, v)| v * f64::from(weights[i % c]) + f64::from(shifts[i / (l * c) * c + i % c]))
        .collect();
    let got = layer_norm_shift(x, weight, &shift, 1e-6).unwrap();
    assert_close(&got, &shifted, 8.0, &format!("shift {what}"));

    let want: Vec<f64> = rms_norm_oracle(&rows, c, 1e-6)
        .iter()
        .enumerate()
        .map(|(i, v)| v * f64::from(weights[i % c]))
        .collect();
    let got = rms_norm(x, Some(weight), 1e-6).unwrap();
    assert_close(&got, &want, 0.0, &format!("rms_norm {what}"));
}

proptest! {
    #[test]
    fn equals_the_oracle(
        b in 1usize..4, l in 1usize..5, c in 2usize..200, mean in prop::sample::select(vec![0f32, 0.5, -3.0]),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        for device in &test_devices() {
            check(b, l, c, mean, dtype, device);
        }
    }
}

#[test]
fn flux_width_and_long_rows() {
    for device in &test_devices() {
        check(2, 9, 3072, 0.3, DType::F32, device);
        check(1, 33, 3072, 0.3, DType::BF16, device);
        check(1, 2, 15_361, 0.3, DType::F32, device);
    }
}

/// Without the shift, f32 sums of squares would leave two digits at mean 100, none at 10^5.
#[test]
fn large_means_cost_no_digits() {
    for device in &test_devices() {
        for (mean, c) in [(100.0, 3072), (-1000.0, 777), (1e5, 64)] {
            let x = data(4 * c, mean, 1.0, 5);
            let view = View::from_slice(&x, [4, c], device).unwrap();
            let got = layer_norm(view, None, None, 1e-6)
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap();
            let want = layer_norm_oracle(&x, c, 1e-6);
            let (mut diff, mut norm) = (0.0, 0.0);
            for (g, w) in got.iter().zip(&want) {
                diff += (f64::from(*g) - w).powi(2);
                norm += w * w;
            }
            // The bound of the kernel's contract; measured about 1e-7.
            assert!(
                (diff / norm).sqrt() <= 1e-6,
                "{device} mean {mean}: {}",
                (diff / norm).sqrt()
            );
        }
    }
}

/// The shift is the mean of the row's first eighth: here it is as far from the row's as it can be, √7 deviations.
#[test]
fn a_row_may_begin_far_from_its_mean() {
    for device in &test_devices() {
        for (step, c) in [(50.0, 3072), (-1e4, 1024), (1e3, 512)] {
            let mut x = data(c, 2.0, 1.0, 4);
            x[..c / 8].iter_mut().for_each(|v| *v += step);
            let view = View::from_slice(&x, [1, c], device).unwrap();
            let got = layer_norm(view, None, None, 1e-6)
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap();
            let want = layer_norm_oracle(&x, c, 1e-6);
            let diff: f64 = got
                .iter()
                .zip(&want)
                .map(|(g, w)| (f64::from(*g) - w).powi(2))
                .sum();
            let norm: f64 = want.iter().map(|w| w * w).sum();
            // As above: the sum of squares about the shift is 8 times that about the mean, so it loses three bits of 24.
            let error = (diff / norm).sqrt();
            assert!(error <= 1e-6, "{device} step {step}: {error}");
        }
    }
}

#[test]
fn bad_values_stay_in_their_row() {
    for device in &test_devices() {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 40, 66] {
                let mut x = data(3 * 67, 0.0, 1.0, 0);
                x[67 + at] = bad;
                let view = View::from_slice(&x, [3, 67], device).unwrap();
                for y in [
                    layer_norm(view, None, None, 1e-6),
                    rms_norm(view, None, 1e-6),
                ] {
                    let y = y.unwrap().to_vec_blocking::<f32>().unwrap();
                    assert!(
                        y[67 + at].is_nan(),
                        "{device}: {bad} at {at} became {}",
                        y[67 + at]
                    );
                    let finite = |r: &[f32]| r.iter().all(|v| v.is_finite());
                    assert!(
                        finite(&y[..67]) && finite(&y[134..]),
                        "{device}: {bad} left its row"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_their_number_or_the_pool() {
    for device in &test_devices() {
        let (l, c) = (300, 515);
        let x = Tensor::from_slice(&data(l * c, 1.0, 2.0, 3), [l, c], device).unwrap();
        let whole = rms_norm(&x, None, 1e-6)
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let again = pool
                .install(|| rms_norm(&x, None, 1e-6))
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap();
            assert!(again == whole, "{threads} threads differ");
        }
        let one = rms_norm(x.view().narrow(0, 7, 1).unwrap(), None, 1e-6).unwrap();
        assert_eq!(one.to_vec_blocking::<f32>().unwrap(), whole[7 * c..8 * c]);
    }
}

/// A result that is stored past the caches has the same bits as its parts, which are not; rows of odd length begin at
/// every alignment.
#[test]
fn large_results_equal_their_parts() {
    for device in &test_devices() {
        for (dtype, c) in [(DType::F32, 2048), (DType::BF16, 2049), (DType::F16, 2064)] {
            let l = (17 << 20) / (c * dtype.size());
            let x = data(l * c, 1.0, 2.0, 4);
            let x = View::from_slice(&x, [l, c], device).unwrap();
            let x = crate::layout::cast(x, dtype).unwrap();
            let whole = layer_norm(&x, None, None, 1e-6).unwrap();
            let parts = [(0, l / 2), (l / 2, l - l / 2)].map(|(start, rows)| {
                let part = x.view().narrow(0, start, rows).unwrap();
                layer_norm(part, None, None, 1e-6).unwrap()
            });
            let parts = parts
                .map(|x| x.host_bytes_blocking().unwrap().to_vec())
                .concat();
            assert!(
                whole.host_bytes_blocking().unwrap() == parts,
                "{device} {dtype}"
            );
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    for device in &test_devices() {
        let x = Tensor::zeros([1, 2, 3], DType::F32, device).unwrap();
        let two = Tensor::zeros([2, 3], DType::F32, device).unwrap();
        assert!(rms_norm(&x, Some(two.view()), 1e-6).is_err());
        assert!(layer_norm(&x, Some(two.view()), None, 1e-6).is_err());
        let e = layer_norm_modulate(&x, &two, &two, 1e-6)
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("layer_norm_modulate") && e.contains("[1, 3]"),
            "{e}"
        );
        assert!(layer_norm_modulate(&two, &two, &two, 1e-6).is_err());
        let weight = Tensor::zeros([3], DType::F32, device).unwrap();
        assert!(layer_norm_shift(&x, &weight, &two, 1e-6).is_err());
        assert!(layer_norm_shift(&two, &weight, &two, 1e-6).is_err());
        let empty = Tensor::zeros([0, 5, 3], DType::F32, device).unwrap();
        let none = Tensor::zeros([0, 3], DType::F32, device).unwrap();
        assert_eq!(
            layer_norm_modulate(&empty, &none, &none, 1e-6)
                .unwrap()
                .shape(),
            [0, 5, 3]
        );
        let mut out = TensorMut::zeros([1, 2, 3], DType::F16, device).unwrap();
        assert!(rms_norm_into(&x, None, 1e-6, out.view_mut()).is_err());
    }
}
