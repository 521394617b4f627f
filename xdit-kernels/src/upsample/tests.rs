use super::*;
use crate::DType;
use crate::testing::test_devices;
use proptest::prelude::*;

proptest! {
    #[test]
    fn pixels_repeat(dims in prop::array::uniform4(1usize..6), narrow in 0usize..3, dtype in 0usize..3) {
        for device in &test_devices() {
            let dtype = [DType::F32, DType::BF16, DType::F16][dtype];
            let data: Vec<f32> = (0..dims.iter().product::<usize>()).map(|i| (i % 251) as f32).collect();
            let x = Tensor::from_slice(&data, dims, device).unwrap().to_dtype(dtype).unwrap();
            // A view with strides: rows and columns swapped, then some columns left out.
            let x = x.view().transpose(1, 2).unwrap();
            let keep = x.dim(2) - narrow % x.dim(2);
            let x = x.narrow(2, 0, keep).unwrap();
            let y = upsample_nearest_2x(x).unwrap();
            prop_assert_eq!(y.shape(), [dims[0], 2 * dims[2], 2 * keep, dims[3]]);
            let (got, mut i) = (y.to_vec_blocking::<f32>().unwrap(), 0);
            for b in 0..dims[0] {
                for r in 0..2 * dims[2] {
                    for c in 0..2 * keep {
                        for k in 0..dims[3] {
                            let at = ((b * dims[1] + c / 2) * dims[2] + r / 2) * dims[3] + k;
                            prop_assert_eq!(got[i], (at % 251) as f32);
                            i += 1;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    for device in &test_devices() {
        let x = Tensor::zeros([2, 3, 4], DType::F32, device).unwrap();
        assert!(upsample_nearest_2x(&x).is_err());
        let x = Tensor::zeros([1, 3, 4, 2], DType::F32, device).unwrap();
        let mut out = TensorMut::zeros([1, 6, 7, 2], DType::F32, device).unwrap();
        assert!(upsample_nearest_2x_into(&x, out.view_mut()).is_err());
        let empty = Tensor::zeros([1, 0, 4, 2], DType::F32, device).unwrap();
        assert_eq!(upsample_nearest_2x(&empty).unwrap().shape(), [1, 0, 8, 2]);
    }
}
