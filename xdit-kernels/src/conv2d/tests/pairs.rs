//! bf16 weights against inputs of each dtype. Where the tier multiplies pairs, the weights are pairs for all of them.

use super::*;
use crate::{Tier, WeightForm};

proptest! {
    #![proptest_config(at_most(48))]
    #[test]
    fn bf16_weights_take_inputs_of_any_dtype(
        (b, h, w) in (1usize..3, 1usize..12, 1usize..24),
        (ic, oc) in (1usize..100, 5usize..70),
        (kernel, stride) in (prop::sample::select(vec![[1, 1], [2, 3], [3, 3]]), 1usize..4),
        padding in padding(),
        (upsample, residual) in (any::<bool>(), any::<bool>()),
        dtype in dtypes(),
    ) {
        let [kh, kw] = kernel;
        let options = Conv2dOptions { stride, padding, upsample, algorithm: Algorithm::Direct };
        let shape = [b, h.max(kh), w.max(kw), ic];
        let mut case = Case::new(shape, [oc, kh, kw], options, DType::BF16);
        // Numbers of the input's own dtype, not bf16 that are only widened.
        case.x = Case::new(shape, [oc, kh, kw], options, dtype).x;
        case.residual = residual;
        for device in &test_devices() {
            let form = case.pack(Algorithm::Direct, device).form();
            let dots = device.tier() == Tier::Avx512Bf16;
            let want = if dots { DType::BF16 } else { DType::F32 };
            prop_assert_eq!(form, WeightForm::Dense(want));
            case.check(Algorithm::Direct, device);
        }
    }
}

/// 0 weighs nothing where it pads an odd number of channels, whatever the input's copy held before.
#[test]
fn pairs_do_not_read_what_another_picture_left() {
    let options = Conv2dOptions::default();
    for device in &test_devices() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::BF16, device).unwrap();
        let nan = |shape: [usize; 4]| {
            let data = vec![half::bf16::NAN; shape.iter().product()];
            Tensor::from_slice(&data, shape, device).unwrap()
        };
        let odd = Conv2d::pack(&zeros(&[8, 17, 1, 1]), None, options, DType::BF16, device).unwrap();
        let even =
            Conv2d::pack(&zeros(&[8, 18, 1, 1]), None, options, DType::BF16, device).unwrap();
        assert!(
            floats(&even.forward(&nan([1, 9, 9, 18])).unwrap())
                .iter()
                .all(|x| x.is_nan())
        );
        let out = odd.forward(&zeros(&[1, 9, 9, 17])).unwrap();
        assert!(floats(&out).iter().all(|x| *x == 0.0), "{device}");
    }
}
