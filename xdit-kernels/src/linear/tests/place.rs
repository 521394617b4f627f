//! Results that lie between others' memory: nothing beside them is written, whichever kernel stores them.

use super::{DTYPES, numbers};
use crate::testing::test_devices;
use crate::{
    Tensor, TensorMut, View, layout,
    linear::{Epilogue, Linear},
};

/// Every number of rows up to some tiles (1, 2 and 4 have kernels of their own; whole tiles store to the output at once),
/// for whole panels of outputs and not, on both sides of the longest block of k.
#[test]
fn neighbours_keep_their_values() {
    let side = 40;
    for device in &test_devices() {
        for (stored, dtype) in DTYPES.into_iter().flat_map(|s| DTYPES.map(|d| (s, d))) {
            for (k, n) in [(20, 64), (1030, 70)] {
                let (weight, bias) = (
                    numbers(&[n, k], 1, stored, device),
                    numbers(&[n], 2, stored, device),
                );
                let layer = Linear::pack(weight.view(), Some(bias.view()), stored, device).unwrap();
                for m in (1..=8).chain([13, 14, 15, 28, 29, 33]) {
                    let x = numbers(&[m, k], 3, dtype, device);
                    // The bias is added by the same rounding whether sums go through an epilogue or not.
                    let zeros = Tensor::zeros([m, n], dtype, device).unwrap();
                    let want = layer
                        .forward_with(&[x.view()], Epilogue::Residual(zeros.view()))
                        .unwrap()
                        .to_vec_blocking::<f32>()
                        .unwrap();
                    let (rows, width) = (m + 2, n + 2 * side);
                    let sevens = vec![7f32; rows * width];
                    let sevens = View::from_slice(&sevens, [rows, width], device).unwrap();
                    let mut wide = TensorMut::zeros([rows, width], dtype, device).unwrap();
                    layout::copy_into(sevens, wide.view_mut()).unwrap();
                    layer
                        .forward_into(&[x.view()], Epilogue::None, {
                            let rows = wide.view_mut().narrow(0, 1, m).unwrap();
                            rows.narrow(1, side, n).unwrap()
                        })
                        .unwrap();
                    let got = wide.freeze().to_vec_blocking::<f32>().unwrap();
                    for (at, &x) in got.iter().enumerate() {
                        let (i, j) = (at / width, at % width);
                        let inside = (1..=m).contains(&i) && (side..side + n).contains(&j);
                        let want = if inside {
                            want[(i - 1) * n + j - side]
                        } else {
                            7.0
                        };
                        assert!(
                            x == want,
                            "{device} {stored} {dtype} {m}x{k}x{n} at {i}, {j}: {x}"
                        );
                    }
                }
            }
        }
    }
}
