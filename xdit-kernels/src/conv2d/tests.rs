//! Convolutions against sums in f64, over odd shapes, on every device, in every dtype and by both algorithms.

mod checks;
mod pairs;
mod rows;

use super::*;
use crate::{
    layout,
    testing::{at_most, floats, test_devices},
};
use proptest::prelude::*;

/// Numbers in −1..1 from a seed (splitmix64).
fn noise(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let mut z = (seed << 32)
                .wrapping_add(i)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

struct Case {
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    options: Conv2dOptions,
    residual: bool,
}

impl Case {
    fn new(x: [usize; 4], [oc, kh, kw]: [usize; 3], options: Conv2dOptions, dtype: DType) -> Self {
        let tensor = |shape: &[usize], seed| {
            let data = noise(shape.iter().product(), seed);
            Tensor::from_slice(&data, shape, &Device::cpu())
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        };
        Self {
            x: tensor(&x, 1),
            weight: tensor(&[oc, x[3], kh, kw], 2),
            bias: Some(tensor(&[oc], 3)),
            options,
            residual: false,
        }
    }

    fn residual(&self, shape: &[usize]) -> Option<Tensor> {
        let data = noise(shape.iter().product(), 4);
        self.residual.then(|| {
            Tensor::from_slice(&data, shape, &Device::cpu())
                .unwrap()
                .to_dtype(self.x.dtype())
                .unwrap()
        })
    }

    fn pack(&self, algorithm: Algorithm, device: &Device) -> Conv2d {
        let options = Conv2dOptions {
            algorithm,
            ..self.options
        };
        let bias = self.bias.as_ref().map(Tensor::view);
        Conv2d::pack(&self.weight, bias, options, self.weight.dtype(), device).unwrap()
    }

    fn forward(&self, algorithm: Algorithm, device: &Device) -> Tensor {
        let on = |x: &Tensor| x.to_device(device).unwrap();
        let (conv, x) = (self.pack(algorithm, device), on(&self.x));
        let shape = conv.output_shape(&x.view(), x.shape()).unwrap();
        let residual = self.residual(&shape).map(|residual| on(&residual));
        conv.forward_with(&x, residual.as_ref().map(Tensor::view))
            .unwrap()
    }

    /// The sum by its definition, and the sum of the products' sizes, which rounding errors are measured by.
    fn oracle(&self, shape: &[usize]) -> Vec<(f64, f64)> {
        let (x, weight) = (
            self.x.to_vec_blocking::<f32>().unwrap(),
            self.weight.to_vec_blocking::<f32>().unwrap(),
        );
        let bias = self.bias.as_ref().map(floats);
        let residual = self
            .residual(shape)
            .map(|r| r.to_vec_blocking::<f32>().unwrap());
        let [_, h, w, ic] = [0, 1, 2, 3].map(|d| self.x.dim(d));
        let [oc, _, kh, kw] = [0, 1, 2, 3].map(|d| self.weight.dim(d));
        let (p, s) = (self.options.padding, self.options.stride);
        let scale = if self.options.upsample { 2 } else { 1 };
        let mut out = Vec::new();
        for i in 0..shape.iter().product() {
            let (o, column, row) = (i % oc, i / oc % shape[2], i / oc / shape[2] % shape[1]);
            let batch = i / oc / shape[2] / shape[1];
            let start = f64::from(bias.as_ref().map_or(0.0, |b| b[o]))
                + f64::from(residual.as_ref().map_or(0.0, |r| r[i]));
            let (mut sum, mut size) = (start, start.abs());
            for y in 0..kh {
                for z in 0..kw {
                    let (r, c) = (
                        (row * s + y).wrapping_sub(p.top),
                        (column * s + z).wrapping_sub(p.left),
                    );
                    if r >= h * scale || c >= w * scale {
                        continue;
                    }
                    for k in 0..ic {
                        let a = f64::from(x[((batch * h + r / scale) * w + c / scale) * ic + k]);
                        let product = a * f64::from(weight[((o * ic + k) * kh + y) * kw + z]);
                        sum += product;
                        size += product.abs();
                    }
                }
            }
            out.push((sum, size));
        }
        out
    }

    fn check(&self, algorithm: Algorithm, device: &Device) {
        let out = self.forward(algorithm, device);
        let winograd = algorithm == Algorithm::Winograd;
        // Of the sum of |products|. Direct: chains of at most 512 roundings, which add up like their square root.
        // Winograd: four times that, since its transforms pass through larger values. A bound chosen, not derived; the error
        // itself is measured in `winograd_loses_little_beside_a_plain_sum`.
        let f32_error = if winograd { 4e-6 } else { 1e-6 };
        let rounding = match self.x.dtype() {
            DType::F32 => 0.0,
            DType::F16 => 1.0 / 2048.0,
            _ => 1.0 / 256.0,
        };
        for (i, (got, (want, size))) in out
            .to_vec_blocking::<f32>()
            .unwrap()
            .into_iter()
            .zip(self.oracle(out.shape()))
            .enumerate()
        {
            let tol = f32_error * size + rounding * want.abs() + 1e-6;
            assert!(
                (f64::from(got) - want).abs() <= tol,
                "{device} {algorithm:?} {} -> {:?} {:?} {:?}: element {i} is {got}, not {want} ± {tol:e}",
                self.x.dtype(),
                self.x.shape(),
                self.weight.shape(),
                self.options,
            );
        }
    }
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::BF16, DType::F16])
}

fn padding() -> impl Strategy<Value = Padding> {
    prop::array::uniform4(0usize..3).prop_map(|[top, bottom, left, right]| Padding {
        top,
        bottom,
        left,
        right,
    })
}

proptest! {
    #![proptest_config(at_most(48))]
    #[test]
    fn direct_is_the_sum(
        (b, h, w) in (1usize..3, 1usize..20, 1usize..40),
        (ic, oc) in (1usize..40, prop_oneof![1usize..6, 6usize..40]),
        (kh, kw, stride) in (1usize..5, 1usize..5, 1usize..4),
        padding in padding(),
        (upsample, bias, residual) in (any::<bool>(), any::<bool>(), any::<bool>()),
        dtype in dtypes(),
    ) {
        let options = Conv2dOptions { stride, padding, upsample, algorithm: Algorithm::Direct };
        let mut case = Case::new([b, h.max(kh), w.max(kw), ic], [oc, kh, kw], options, dtype);
        case.residual = residual;
        case.bias = case.bias.filter(|_| bias);
        for device in &test_devices() {
            case.check(Algorithm::Direct, device);
        }
    }

    #[test]
    fn winograd_is_the_sum(
        (b, h, w) in (1usize..3, 3usize..24, 3usize..40),
        (ic, oc) in (1usize..50, 1usize..50),
        padding in padding(),
        (upsample, residual) in (any::<bool>(), any::<bool>()),
        dtype in dtypes(),
    ) {
        let options = Conv2dOptions { padding, upsample, ..Conv2dOptions::default() };
        let mut case = Case::new([b, h, w, ic], [oc, 3, 3], options, dtype);
        case.residual = residual;
        for device in &test_devices() {
            case.check(Algorithm::Winograd, device);
        }
    }
}

/// ‖error‖ / ‖result‖ of an algorithm on random data, against the sum in f64.
fn relative_error(algorithm: Algorithm, case: &Case, device: &Device) -> f64 {
    let out = case.forward(algorithm, device);
    let (mut error, mut total) = (0.0, 0.0);
    for (got, (want, _)) in out
        .to_vec_blocking::<f32>()
        .unwrap()
        .into_iter()
        .zip(case.oracle(out.shape()))
    {
        error += (f64::from(got) - want).powi(2);
        total += want * want;
    }
    (error / total).sqrt()
}

#[test]
fn winograd_loses_little_beside_a_plain_sum() {
    let options = Conv2dOptions {
        padding: Padding::all(1),
        ..Conv2dOptions::default()
    };
    let case = Case::new([1, 24, 24, 256], [24, 3, 3], options, DType::F32);
    // A plain sum of 9·256 products rounds about √(9·256)·2⁻²⁵ of its size away, less for its chains of 512. Winograd's
    // points were chosen for an error below twice that of one f32 chain (0.9e-6); the textbook's give 3.2e-6.
    for device in &test_devices() {
        let [direct, winograd] = [Algorithm::Direct, Algorithm::Winograd]
            .map(|algorithm| relative_error(algorithm, &case, device));
        assert!(direct <= 0.9e-6, "{device}: {direct:e}");
        assert!(winograd <= 1.8e-6, "{device}: {winograd:e}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let options = Conv2dOptions {
        padding: Padding::all(1),
        ..Conv2dOptions::default()
    };
    let case = Case::new([2, 37, 61, 19], [21, 3, 3], options, DType::F32);
    for device in &test_devices() {
        for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| case.forward(algorithm, device))
            };
            let one = run(1);
            for threads in [2, 3, 7] {
                assert_eq!(
                    run(threads).host_bytes_blocking().unwrap(),
                    one.host_bytes_blocking().unwrap(),
                    "{device} {algorithm:?} on {threads} threads"
                );
            }
        }
    }
}

#[test]
fn a_picture_is_the_same_in_any_batch() {
    let options = Conv2dOptions {
        padding: Padding::all(1),
        ..Conv2dOptions::default()
    };
    for device in &test_devices() {
        for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
            let mut case = Case::new([3, 29, 23, 19], [21, 3, 3], options, DType::F32);
            let all = case.forward(algorithm, device);
            case.x = case.x.narrow(0, 1, 1).unwrap();
            let one = case.forward(algorithm, device);
            assert_eq!(
                all.narrow(0, 1, 1).unwrap().host_bytes_blocking().unwrap(),
                one.host_bytes_blocking().unwrap(),
                "{device} {algorithm:?}"
            );
        }
    }
}

#[test]
fn strided_views_go_in_and_out() {
    let options = Conv2dOptions {
        padding: Padding::all(1),
        ..Conv2dOptions::default()
    };
    let case = Case::new([2, 9, 11, 5], [6, 3, 3], options, DType::F32);
    for device in &test_devices() {
        let want = case.forward(Algorithm::Auto, device);
        let conv = case.pack(Algorithm::Auto, device);
        // Channels first in memory, seen as channels last.
        let x = case.x.to_device(device).unwrap();
        let x = layout::contiguous(x.view().permute(&[0, 3, 1, 2]).unwrap()).unwrap();
        let x = x.view().permute(&[0, 2, 3, 1]).unwrap();
        let mut out = TensorMut::zeros([2, 9, 13, 8], DType::F32, device).unwrap();
        let part = out
            .view_mut()
            .narrow(2, 1, 11)
            .unwrap()
            .narrow(3, 2, 6)
            .unwrap();
        conv.forward_into(x, None, part).unwrap();
        let out = out.freeze();
        let inside = out.narrow(2, 1, 11).unwrap().narrow(3, 2, 6).unwrap();
        assert_eq!(floats(&inside), floats(&want), "{device}");
        let not_zero = |x: &Tensor| floats(x).iter().filter(|x| **x != 0.0).count();
        assert_eq!(not_zero(&out), not_zero(&want), "{device}: wrote around it");
    }
}
