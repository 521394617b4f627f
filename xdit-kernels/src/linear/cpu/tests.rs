//! The form that only tiers with a bf16 instruction choose, on every tier.

use super::*;
use crate::{DType, linear::tests::numbers, testing::test_devices};

/// Through fused multiply-adds of widened pairs, on tiers that never choose it themselves.
#[test]
fn pairs_of_bf16_on_both_sides_equal_f64() {
    for device in &test_devices() {
        for (m, k, n, cut) in [(1, 7, 5, 0), (31, 1027, 70, 513), (5, 64, 33, 32)] {
            let w = numbers(&[n, k], 11, DType::BF16, device);
            let parts = [(w.view(), None)];
            let packed = PackedLinear::new(&parts, [n, k], FloatType::BF16, device).unwrap();
            let x = numbers(&[m, k], 12, DType::BF16, device);
            let inputs = [
                x.view().narrow(1, 0, cut).unwrap(),
                x.view().narrow(1, cut, k - cut).unwrap(),
            ];
            let mut out = vec![0f32; m * n];
            let finish = Finish {
                tier: device.tier(),
                bias: &packed.bias,
                kind: FusedOp::None,
                dtype: FloatType::F32,
                rows: RowOffsets::leading(&[m, n], &[n, 1]),
                out: Shared(out.as_mut_ptr().cast()),
                n,
            };
            let input = Input::new(&inputs).unwrap();
            MatrixProduct::<Dots>::new(&packed, &input, &finish)
                .run()
                .unwrap();
            let (x, w) = (
                x.to_vec_blocking::<f32>().unwrap(),
                w.to_vec_blocking::<f32>().unwrap(),
            );
            for (at, got) in out.into_iter().enumerate() {
                let products =
                    (0..k).map(|i| f64::from(x[at / n * k + i]) * f64::from(w[at % n * k + i]));
                let (want, size) = products.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
                // As for whole layers, without a rounding of the result. BFMMLA rounds to odd: an addition is wrong by up
                // to a unit in the last place instead of half of one, but as often up as down.
                let tol = 16.0 * 2f64.powi(-24) * (size + 1.0);
                assert!(
                    (f64::from(got) - want).abs() <= tol,
                    "{device} {m}x{k}x{n} at {at}: {got} not {want}"
                );
            }
        }
    }
}
