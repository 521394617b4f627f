//! Weights in each form: the packed numbers, and their bytes.

use super::{DTYPES, numbers};
use crate::{Float, View, WeightForm, linear::Linear, testing::test_devices};
use half::{bf16, f16};

/// Numbers of every dtype survive packing exactly: a unit row picks its weight.
#[test]
fn unit_rows_pick_weights() {
    fn pick<T: Float>() {
        let (n, k) = (37, 21);
        let weight: Vec<T> = (0..n * k).map(|i| T::from_f32(i as f32 - 300.0)).collect();
        let unit: Vec<T> = (0..k * k)
            .map(|i| T::from_f32(f32::from(u8::from(i / k == i % k))))
            .collect();
        for device in &test_devices() {
            let weight = View::from_slice(&weight, [n, k], device).unwrap();
            let layer = Linear::pack(weight, None, T::DTYPE, device).unwrap();
            let got = layer
                .forward(View::from_slice(&unit, [k, k], device).unwrap())
                .unwrap();
            let want = weight.transpose(0, 1).unwrap().to_tensor().unwrap();
            assert_eq!(
                got.host_bytes_blocking().unwrap(),
                want.host_bytes_blocking().unwrap(),
                "{device} {}",
                T::DTYPE
            );
        }
    }
    pick::<f32>();
    pick::<bf16>();
    pick::<f16>();
}

/// Beside its matrix a layer holds a bias, and padding to whole panels: none for these sizes.
#[test]
fn a_form_tells_the_bytes_of_its_matrix() {
    for device in &test_devices() {
        for dtype in DTYPES {
            let weight = numbers(&[64, 96], 1, dtype, device);
            let layer = Linear::pack(weight.view(), None, dtype, device).unwrap();
            assert_eq!(layer.form(), WeightForm::Dense(dtype));
            let bytes = layer.form().matrix_bytes(64, 96) + 64 * 4;
            assert_eq!(layer.byte_len() as u64, bytes, "{device} {dtype}");
        }
    }
    assert_eq!(WeightForm::Winograd.matrix_bytes(usize::MAX, 9), u64::MAX);
}
