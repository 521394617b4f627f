use super::*;
use crate::testing::test_devices;
use crate::{DType, Device};
use proptest::prelude::*;

fn data(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 + seed * 104_729 + i / 11) % 2003) as f32 * 0.002 - 2.0)
        .collect()
}

/// Norm and rotation of the rows of [b, l, h, d] in f64, by the definition: with a bias the norm is a LayerNorm.
fn oracle(
    x: &[f32],
    [l, h, d]: [usize; 3],
    (weight, bias): (Option<&[f32]>, Option<&[f32]>),
    eps: Option<f64>,
    rope: Option<(&[f32], &[f32])>,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for (r, row) in x.chunks(d).enumerate() {
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        let mean = bias.map_or(0.0, |_| row.iter().sum::<f64>() / d as f64);
        let square = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
        let rs = eps.map_or(1.0, |eps| 1.0 / (square + eps).sqrt());
        let y: Vec<f64> = (0..d)
            .map(|i| {
                let y = (row[i] - mean) * rs * weight.map_or(1.0, |w| f64::from(w[i]));
                y + bias.map_or(0.0, |b| f64::from(b[i]))
            })
            .collect();
        let at = r / h % l * d;
        out.extend((0..d).map(|i| match rope {
            None => y[i],
            Some((cos, sin)) => {
                let turned = if i % 2 == 0 { -y[i + 1] } else { y[i - 1] };
                y[i] * f64::from(cos[at + i]) + turned * f64::from(sin[at + i])
            }
        }));
    }
    out
}

/// f32: a few roundings of terms as large as `|weight|·√d`, here below 4, plus a bias below 2; 16-bit: the output's rounding.
fn assert_close(got: &Tensor, want: &[f64], what: &str) {
    let (relative, absolute) = match got.dtype() {
        DType::F32 => (0.0, 4e-6),
        DType::BF16 => (2f64.powi(-8), 4e-6),
        _ => (2f64.powi(-11), 4e-6),
    };
    assert_eq!(got.numel(), want.len());
    for (i, (g, w)) in got
        .to_vec_blocking::<f32>()
        .unwrap()
        .iter()
        .zip(want)
        .enumerate()
    {
        let diff = (f64::from(*g) - w).abs();
        assert!(
            diff <= relative * w.abs() + absolute,
            "{what} at {i}: {g} not {w}"
        );
    }
}

fn check(b: usize, l: usize, h: usize, d: usize, dtype: DType, device: &Device) {
    let what = format!("[{b}, {l}, {h}, {d}] {dtype} {device}");
    let qkv = Tensor::from_slice(&data(b * l * 3 * h * d, d), [b, l, 3, h, d], device)
        .unwrap()
        .to_dtype(dtype)
        .unwrap();
    let positions: Vec<f32> = (0..l).map(|i| i as f32 * 1.5).collect();
    let table = d
        .is_multiple_of(2)
        .then(|| rope_table(&positions, d, 10_000.0, device).unwrap());
    let rope = table.as_ref().map(|(c, s)| (c.view(), s.view()));
    let tables = table.as_ref().map(|(c, s)| {
        (
            c.to_vec_blocking::<f32>().unwrap(),
            s.to_vec_blocking::<f32>().unwrap(),
        )
    });
    let tables = tables.as_ref().map(|(c, s)| (&c[..], &s[..]));
    let weight = Tensor::from_slice(&data(d, 9), [d], device)
        .unwrap()
        .to_dtype(DType::BF16)
        .unwrap();
    let weights = weight.to_vec_blocking::<f32>().unwrap();
    let bias = Tensor::from_slice(&data(d, 4), [d], device).unwrap();
    let biases = bias.to_vec_blocking::<f32>().unwrap();
    let part = |i| qkv.view().select(2, i).unwrap();
    let rows = |i| {
        part(i)
            .to_tensor()
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap()
    };

    let got = rms_norm_rope(part(1), Some(weight.view()), 1e-6, rope).unwrap();
    assert_close(
        &got,
        &oracle(
            &rows(1),
            [l, h, d],
            (Some(&weights), None),
            Some(1e-6),
            tables,
        ),
        &format!("k {what}"),
    );
    let got = rms_norm_rope(part(0), None, 1e-6, None).unwrap();
    assert_close(
        &got,
        &oracle(&rows(0), [l, h, d], (None, None), Some(1e-6), None),
        &format!("norm {what}"),
    );
    let got = layer_norm_rope(part(1), weight.view(), bias.view(), 1e-6, rope).unwrap();
    let layered = (Some(&weights[..]), Some(&biases[..]));
    assert_close(
        &got,
        &oracle(&rows(1), [l, h, d], layered, Some(1e-6), tables),
        &format!("layer norm {what}"),
    );

    // Into rows 2.. of longer tensors; k without a norm, or with a layer norm.
    let layer = HeadNorm::Layer {
        weight: weight.view(),
        bias: bias.view(),
    };
    let (norm_k, key_norm, key_eps) = match l % 2 {
        0 => (None, (None, None), None),
        _ => (Some(layer), layered, Some(1e-6)),
    };
    let new = || TensorMut::zeros([b, l + 3, h, d], dtype, device).unwrap();
    let (mut q, mut k, mut v) = (new(), new(), new());
    let options = QkNormRope {
        norm_q: Some(HeadNorm::Rms(weight.view())),
        norm_k,
        eps: 1e-6,
        rope,
    };
    qk_norm_rope_into(
        qkv.view(),
        &options,
        q.view_mut().narrow(1, 2, l).unwrap(),
        k.view_mut().narrow(1, 2, l).unwrap(),
        v.view_mut().narrow(1, 2, l).unwrap(),
    )
    .unwrap();
    let (q, k, v) = (q.freeze(), k.freeze(), v.freeze());
    let middle = |t: &Tensor| t.narrow(1, 2, l).unwrap();
    assert_close(
        &middle(&q),
        &oracle(
            &rows(0),
            [l, h, d],
            (Some(&weights), None),
            Some(1e-6),
            tables,
        ),
        &format!("q {what}"),
    );
    assert_close(
        &middle(&k),
        &oracle(&rows(1), [l, h, d], key_norm, key_eps, tables),
        &format!("k {what}"),
    );
    assert_eq!(
        middle(&v).to_vec_blocking::<f32>().unwrap(),
        rows(2),
        "v {what}"
    );
    for t in [&q, &k, &v] {
        let around = [t.narrow(1, 0, 2).unwrap(), t.narrow(1, l + 2, 1).unwrap()];
        assert!(
            around.iter().all(|t| t
                .to_vec_blocking::<f32>()
                .unwrap()
                .iter()
                .all(|&x| x == 0.0)),
            "{what}: wrote outside"
        );
    }
}

proptest! {
    #[test]
    fn equals_the_oracle(
        b in 1usize..3, l in 1usize..6, h in 1usize..4,
        d in prop::sample::select(vec![2usize, 7, 8, 16, 22, 32, 40, 63, 64, 72, 80, 88, 96, 128, 130]),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        for device in &test_devices() {
            check(b, l, h, d, dtype, device);
        }
    }
}

#[test]
fn flux_heads_in_parallel() {
    for device in &test_devices() {
        check(2, 70, 24, 128, DType::F32, device);
    }
}

#[test]
fn a_rotation_keeps_lengths_and_adds_up() {
    for device in &test_devices() {
        // Position p turned by q more equals position p + q.
        let d = 64;
        let x = Tensor::from_slice(&data(d, 1), [1, 1, 1, d], device).unwrap();
        let turn = |x: &Tensor, position: f64| {
            let (cos, sin) = rope_table(&[position], d, 10_000.0, device).unwrap();
            let qkv = Tensor::cat(&[x.view(), x.view(), x.view()], 2)
                .unwrap()
                .reshape([1, 1, 3, 1, d])
                .unwrap();
            let new = || TensorMut::zeros([1, 1, 1, d], DType::F32, device).unwrap();
            let (mut q, mut k, mut v) = (new(), new(), new());
            let options = QkNormRope {
                rope: Some((cos.view(), sin.view())),
                ..QkNormRope::default()
            };
            qk_norm_rope_into(&qkv, &options, q.view_mut(), k.view_mut(), v.view_mut()).unwrap();
            q.freeze()
        };
        let twice = turn(&turn(&x, 5.0), 12.0).to_vec_blocking::<f32>().unwrap();
        let once = turn(&x, 17.0).to_vec_blocking::<f32>().unwrap();
        for (a, b) in twice.iter().zip(&once) {
            // Entries are below 3; two roundings of each table and product.
            assert!((a - b).abs() <= 2e-6, "{a} not {b}");
        }
    }
}

/// What the mean is large beside costs no digits: a row of 1000 and a bit has the norm of the bit.
#[test]
fn large_means_cost_no_digits() {
    let d = 88;
    let small = data(2 * d, 3);
    let x: Vec<f32> = small
        .iter()
        .map(|v| (v * 64.0).round() / 64.0 + 1000.0)
        .collect();
    let ones = vec![1f32; d];
    let zeros = vec![0f32; d];
    let want = oracle(&x, [2, 1, d], (None, Some(&zeros)), Some(1e-6), None);
    for device in &test_devices() {
        let parameter = |p| View::from_slice(p, [d], device).unwrap();
        let view = View::from_slice(&x, [1, 2, 1, d], device).unwrap();
        let y = layer_norm_rope(view, parameter(&ones), parameter(&zeros), 1e-6, None).unwrap();
        assert_close(&y, &want, &device.to_string());
    }
}

#[test]
fn nan_stays_in_its_row() {
    let mut x = data(4 * 22, 0);
    x[22 + 3] = f32::NAN;
    for device in &test_devices() {
        let view = View::from_slice(&x, [1, 2, 2, 22], device).unwrap();
        let y = rms_norm_rope(view, None, 1e-6, None)
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap();
        assert!(y[22..44].iter().all(|v| v.is_nan()), "{device}");
        assert!(
            y[..22].iter().chain(&y[44..]).all(|v| v.is_finite()),
            "{device}"
        );
    }
}

#[test]
fn wrong_shapes_are_errors() {
    for device in &test_devices() {
        let (cos, sin) = rope_table(&[0.0, 1.0], 8, 10_000.0, device).unwrap();
        let rope = Some((cos.view(), sin.view()));
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).unwrap();
        assert!(rope_table(&[1.0], 3, 10_000.0, device).is_err());
        assert!(
            rms_norm_rope(&zeros(&[1, 3, 1, 8]), None, 1e-6, rope).is_err(),
            "three tokens, two positions"
        );
        assert!(rms_norm_rope(&zeros(&[1, 2, 1, 7]), None, 1e-6, rope).is_err());
        assert!(rms_norm_rope(&zeros(&[2, 1, 8]), None, 1e-6, None).is_err());
        let (three, seven) = (zeros(&[3]), zeros(&[7]));
        let heads = zeros(&[1, 2, 1, 7]);
        assert!(layer_norm_rope(&heads, seven.view(), three.view(), 1e-6, None).is_err());
        assert!(layer_norm_rope(&heads, three.view(), seven.view(), 1e-6, None).is_err());
        let odd = zeros(&[2, 7]);
        let e = rms_norm_rope(
            &zeros(&[1, 2, 1, 7]),
            None,
            1e-6,
            Some((odd.view(), odd.view())),
        )
        .unwrap_err();
        assert!(e.to_string().contains("even head dim"), "{e}");
        let new = || TensorMut::zeros([1, 2, 1, 8], DType::F32, device).unwrap();
        let (mut q, mut k, mut v) = (new(), new(), new());
        let two = zeros(&[1, 2, 2, 1, 8]);
        let r = qk_norm_rope_into(
            &two,
            &QkNormRope::default(),
            q.view_mut(),
            k.view_mut(),
            v.view_mut(),
        );
        assert!(r.is_err(), "two parts");
    }
}
