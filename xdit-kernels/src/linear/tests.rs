//! Linear layers against sums in f64, over odd shapes, every device, dtype and epilogue.

mod checks;
mod forms;
mod place;

use super::*;
use crate::{
    activation::Activation,
    layout,
    testing::{at_most, test_devices},
};
use proptest::prelude::*;

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Numbers of both signs in about −1..1 that differ from place to place, as `dtype`.
pub(super) fn numbers(shape: &[usize], seed: u32, dtype: DType, device: &Device) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let data: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    layout::cast(View::from_slice(&data, shape, device).unwrap(), dtype).unwrap()
}

/// Half a unit in the last place of a number near x.
fn rounding(dtype: DType, x: f64) -> f64 {
    let bits = match dtype {
        DType::F32 => 24,
        DType::BF16 => 8,
        _ => 11,
    };
    // Below f16's smallest normal number the spacing no longer shrinks.
    x.abs().max(6.2e-5) * 0.5f64.powi(bits)
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// One case: sizes, dtypes of weights and input, and which epilogue.
#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    stored: DType,
    dtype: DType,
    epilogue: usize,
    /// Columns of the first of two inputs.
    cut: usize,
    batch: usize,
}

fn check(case: Case, device: &Device) {
    let Case {
        m,
        k,
        n,
        stored,
        dtype,
        epilogue,
        cut,
        batch,
    } = case;
    let (weight, bias) = (
        numbers(&[n, k], 1, DType::F32, device),
        numbers(&[n], 2, DType::F32, device),
    );
    let first = n / 3;
    let parts = [
        (
            weight.view().narrow(0, 0, first).unwrap(),
            Some(bias.view().narrow(0, 0, first).unwrap()),
        ),
        (weight.view().narrow(0, first, n - first).unwrap(), None),
    ];
    let layer = Linear::pack_rows(&parts, stored, device).unwrap();
    // [batch, m, k], rows longer than k so that neither input is contiguous.
    let x = numbers(&[batch, m, k + 3], 3, dtype, device);
    let cut = cut % (k + 1);
    let inputs = [
        x.view().narrow(2, 0, cut).unwrap(),
        x.view().narrow(2, cut, k - cut).unwrap(),
    ];
    let shape = [batch, m, n];
    let (other, gate) = (
        numbers(&shape, 4, dtype, device),
        numbers(&[batch, n], 5, dtype, device),
    );
    let fused = match epilogue {
        0 => Epilogue::None,
        1 => Epilogue::Activation(Activation::Silu),
        2 => Epilogue::Residual(other.view()),
        3 => Epilogue::GateResidual {
            gate: gate.view(),
            residual: other.view(),
        },
        _ => Epilogue::Mul(other.view()),
    };
    let got = layer.forward_with(&inputs, fused).unwrap();
    assert_eq!((got.shape(), got.dtype()), (&shape[..], dtype));
    let (got, other, gate) = (
        got.to_vec_blocking::<f32>().unwrap(),
        other.to_vec_blocking::<f32>().unwrap(),
        gate.to_vec_blocking::<f32>().unwrap(),
    );
    let (x, w) = (
        x.to_vec_blocking::<f32>().unwrap(),
        layout::cast(&weight, stored)
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap(),
    );
    let bias = layout::cast(&bias, stored)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    for row in 0..batch * m {
        for j in 0..n {
            let (mut sum, mut size) = (0.0, 0.0f64);
            for i in 0..k {
                let product = f64::from(x[row * (k + 3) + i]) * f64::from(w[j * k + i]);
                sum += product;
                size += product.abs();
            }
            if j < first {
                sum += f64::from(bias[j]);
            }
            let (at, g) = (row * n + j, f64::from(gate[row / m * n + j]));
            let o = f64::from(other[at]);
            let want = match epilogue {
                0 => sum,
                1 => silu(sum),
                2 => o + sum,
                3 => o + g * sum,
                _ => o * sum,
            };
            // A chain of at most 512 roundings of numbers up to `size` errs by √512/2 units (2^-24) in the mean; 16
            // leaves room for the worst of many. |o|, |g| ≤ 1 and silu's slope ≤ 1.1 carry it on; the last term is the
            // rounding of the result and of the operations behind the sum.
            let tol = 16.0 * 2f64.powi(-24) * (size + 1.0) * 1.1 + 1.01 * rounding(dtype, want);
            let got = f64::from(got[at]);
            assert!(
                (got - want).abs() <= tol,
                "{case:?} {device} row {row} column {j}: {got} not {want} ± {tol}"
            );
        }
    }
}

fn dtype() -> impl Strategy<Value = DType> {
    (0usize..3).prop_map(|i| DTYPES[i])
}

proptest! {
    #![proptest_config(at_most(48))]
    #[test]
    fn any_shape_equals_f64(
        m in 1usize..70, k in 1usize..600, n in 1usize..150, stored in dtype(), dtype in dtype(),
        epilogue in 0usize..5, cut in 0usize..600, batch in 1usize..3,
    ) {
        for device in &test_devices() {
            check(Case { m, k, n, stored, dtype, epilogue, cut, batch }, device);
        }
    }
}

#[test]
fn several_blocks_and_edges_equal_f64() {
    for device in &test_devices() {
        for stored in DTYPES {
            for (m, k, n) in [(1, 1, 1), (3, 0, 5), (2, 1025, 33), (29, 1536, 31)] {
                check(
                    Case {
                        m,
                        k,
                        n,
                        stored,
                        dtype: stored,
                        epilogue: 3,
                        cut: 511,
                        batch: 2,
                    },
                    device,
                );
            }
        }
    }
}

/// Every row alone, in a few and in many, on pools of several sizes: the same bytes.
#[test]
fn a_row_depends_on_itself_alone() {
    let (m, k, n) = (61, 1100, 203);
    for device in &test_devices() {
        for stored in DTYPES {
            let layer = Linear::pack(
                numbers(&[n, k], 6, stored, device).view(),
                None,
                stored,
                device,
            )
            .unwrap();
            let x = numbers(&[m, k], 7, stored, device);
            let one = |threads: usize, start: usize, rows: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let part = x.view().narrow(0, start, rows).unwrap();
                pool.install(|| {
                    layer
                        .forward(part)
                        .unwrap()
                        .host_bytes_blocking()
                        .unwrap()
                        .to_vec()
                })
            };
            let whole = one(1, 0, m);
            let row = n * stored.size();
            assert!(
                one(2, 0, m) == whole && one(3, 0, m) == whole,
                "{device} {stored}: threads change the result"
            );
            for (start, rows) in [(0, 1), (60, 1), (17, 2), (30, 3), (40, 4), (5, 14), (9, 40)] {
                assert!(
                    one(2, start, rows) == whole[start * row..][..rows * row],
                    "{device} {stored}: {rows} rows from {start}"
                );
            }
        }
    }
}

/// Weights of any dtype and strides, an output with strides, operands of another dtype.
#[test]
fn views_of_any_kind_are_taken() {
    for device in &test_devices() {
        let weight_kn = numbers(&[40, 30], 8, DType::F16, device);
        let weight = weight_kn.view().transpose(0, 1).unwrap();
        let layer = Linear::pack(weight, None, DType::F32, device).unwrap();
        assert_eq!(
            (layer.in_features(), layer.out_features(), layer.form()),
            (40, 30, WeightForm::Dense(DType::F32))
        );
        let x_km = numbers(&[40, 5], 9, DType::F32, device);
        let residual = numbers(&[5, 30], 10, DType::BF16, device);
        let x = x_km.view().transpose(0, 1).unwrap();
        let want = layer.forward_with(
            &[x.to_tensor().unwrap().view()],
            Epilogue::Residual(residual.to_dtype(DType::F32).unwrap().view()),
        );
        let want = want.unwrap().to_vec_blocking::<f32>().unwrap();
        // The middle third of rows of 90.
        let mut wide = TensorMut::zeros([5, 90], DType::F32, device).unwrap();
        let middle = wide.view_mut().narrow(1, 30, 30).unwrap();
        layer
            .forward_into(&[x], Epilogue::Residual(residual.view()), middle)
            .unwrap();
        let wide = wide.freeze().to_vec_blocking::<f32>().unwrap();
        for i in 0..5 {
            let (row, zeros) = (&wide[i * 90..][..90], [0.0; 30]);
            assert_eq!(
                (&row[..30], &row[30..60], &row[60..]),
                (&zeros[..], &want[i * 30..][..30], &zeros[..]),
                "{device} row {i}"
            );
        }
    }
}

/// A gate for an output without a batch dim has one row.
#[test]
fn an_output_of_one_dim_is_one_batch_entry() {
    for device in &test_devices() {
        let weight = numbers(&[4, 3], 1, DType::F32, device);
        let layer = Linear::pack(weight.view(), None, DType::F32, device).unwrap();
        let x = numbers(&[3], 2, DType::F32, device);
        let (gate, residual) = (
            numbers(&[1, 4], 3, DType::F32, device),
            numbers(&[4], 4, DType::F32, device),
        );
        let forward = |x: &Tensor, residual: &Tensor| {
            let gate = gate.view();
            let residual = residual.view();
            let fused = Epilogue::GateResidual { gate, residual };
            layer.forward_with(&[x.view()], fused)
        };
        let row = forward(
            &x.reshape([1, 3]).unwrap(),
            &residual.reshape([1, 4]).unwrap(),
        );
        let got = forward(&x, &residual).unwrap();
        assert_eq!(got.shape(), [4]);
        assert_eq!(
            got.host_bytes_blocking().unwrap(),
            row.unwrap().host_bytes_blocking().unwrap(),
            "{device}"
        );
    }
}
