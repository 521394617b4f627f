use super::*;
use crate::{
    Device,
    testing::{FLOATS, at_most, floats, test_devices},
};
use proptest::prelude::*;

fn levels(values: &[f32], shape: [usize; 4], device: &Device) -> Vec<u8> {
    let planes = Tensor::from_slice(values, shape, device).unwrap();
    rgb8(&planes).unwrap().to_vec_blocking().unwrap()
}

#[test]
fn halves_round_to_even_and_what_is_outside_is_clamped() {
    for device in &test_devices() {
        // 0.5/255 and 1.5/255 times 255 are exactly 0.5 and 1.5 in f32.
        let values = [0.5 / 255.0, 1.5 / 255.0, 0.0, 1.0, -0.3, 1.7];
        let got = levels(&values, [1, 3, 1, 2], device);
        assert_eq!(got, [0, 0, 0, 2, 255, 255]);
        assert_eq!(
            levels(&[f32::NAN, f32::INFINITY, 0.5], [1, 3, 1, 1], device),
            [0, 255, 128]
        );
        assert!(levels(&[], [0, 3, 2, 2], device).is_empty());
    }
}

#[test]
fn other_shapes_and_dtypes_are_refused() {
    let device = &Device::cpu();
    let four = Tensor::zeros([1, 4, 2, 2], DType::F32, device).unwrap();
    assert!(rgb8(&four).is_err());
    let bytes = Tensor::zeros([1, 3, 2, 2], DType::U8, device).unwrap();
    assert!(rgb8(&bytes).is_err());
    let planes = Tensor::zeros([1, 3, 2, 2], DType::F32, device).unwrap();
    let mut out = TensorMut::zeros([1, 2, 2, 4], DType::U8, device).unwrap();
    assert!(rgb8_into(&planes, out.view_mut().narrow(3, 0, 3).unwrap()).is_err());
}

proptest! {
    #![proptest_config(at_most(16))]

    #[test]
    fn every_pixel_is_its_planes(b in 1..3usize, h in 1..200usize, w in 1..200usize, seed in 0..99usize) {
        for device in &test_devices() {
            for dtype in FLOATS {
                let x = crate::testing::tensor(&[b, 3, h, w], dtype, seed, device);
                let values = floats(&x);
                let got: Vec<u8> = rgb8(&x).unwrap().to_vec_blocking().unwrap();
                for (i, got) in got.iter().enumerate() {
                    let (pixel, c) = (i / 3 % (h * w), i % 3);
                    let value = f64::from(values[(i / 3 / (h * w) * 3 + c) * h * w + pixel]);
                    // The product in f32 is within a rounding of the exact one.
                    let exact = (value * 255.0).clamp(0.0, 255.0);
                    prop_assert!((f64::from(*got) - exact).abs() <= 0.5 + 1e-4);
                }
            }
        }
    }
}
