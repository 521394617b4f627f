//! Sums in f64 that kernels add up.

use crate::support::{FLOATS, Pair, sizes, tensor};
use xdit_kernels::{Device, Result, Tensor, sums::RunningSums};

/// What a method of sums adds on a device.
fn summed(device: &Device, of: impl Fn(&mut RunningSums, &Device) -> Result<()>) -> Vec<f64> {
    let mut sums = RunningSums::zeros(8, device).unwrap();
    // Twice, to what is there.
    of(&mut sums, device).unwrap();
    of(&mut sums, device).unwrap();
    let mut total = sums.clone();
    total.add(0, &sums).unwrap();
    total.to_vec_blocking(0..8).unwrap()
}

#[test]
#[ignore = "needs a GPU"]
fn sums_and_what_is_not_finite() {
    let pair = Pair::new();
    let assert_sums = |of: &dyn Fn(&mut RunningSums, &Device) -> Result<()>| {
        let (want, got) = (summed(&pair.cpu, of), summed(&pair.gpu, of));
        for (want, got) in want.iter().zip(&got) {
            assert!(
                (want - got).abs() <= 1e-12 * want.abs(),
                "{got:?}, not {want:?}"
            );
        }
        assert!(want.iter().any(|x| *x != 0.0));
    };
    for dtype in FLOATS {
        for other in FLOATS {
            for (shape, first, every) in sizes(
                &[([2, 7, 16], 0, 1), ([2, 7, 5], 1, 3), ([1, 40, 300], 2, 1)],
                &[([2, 301, 3072], 5, 7)],
            ) {
                assert_sums(&|sums, device| {
                    let (x, y) = (
                        tensor(&shape, dtype, 1, device),
                        tensor(&shape, other, 2, device),
                    );
                    sums.add_distance(2, &x, &y, first, every)
                });
            }
        }
        assert_sums(&|sums, device| {
            let (x, y) = (
                tensor(&[2, 9], dtype, 1, device),
                tensor(&[2, 9], dtype, 2, device),
            );
            sums.add_distance(0, &x, &y, 1, 2)
        });
        assert_sums(&|sums, device| sums.add_moments(1, &tensor(&[3, 4, 5], dtype, 1, device)));
        assert_sums(&|sums, device| {
            sums.add_moments(
                1,
                tensor(&[3, 4, 16], dtype, 1, device)
                    .view()
                    .transpose(0, 1)?
                    .narrow(0, 1, 3)?,
            )
        });
        let broken = |device: &Device| {
            let mut x = [1f32; 30];
            (x[7], x[12], x[29]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
            Tensor::from_slice(&x, [3, 10], device)?.to_dtype(dtype)
        };
        assert_sums(&|sums, device| sums.add_not_finite(1, &broken(device)?));
        assert_sums(&|sums, device| {
            sums.add_not_finite(1, broken(device)?.view().narrow(1, 2, 6)?)
        });
        assert_eq!(
            broken(&pair.gpu)
                .unwrap()
                .first_not_finite_blocking()
                .unwrap(),
            Some(7)
        );
        assert_eq!(
            tensor(&[9], dtype, 1, &pair.gpu)
                .first_not_finite_blocking()
                .unwrap(),
            None
        );
    }
}
