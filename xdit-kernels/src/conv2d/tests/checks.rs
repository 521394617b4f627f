//! Refused calls, and the bytes that a form tells.

use super::*;
use crate::{Tier, testing::assert_two_devices};

#[test]
fn wrong_input_is_an_error() {
    for device in &test_devices() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).unwrap();
        let pack = |weight: &[usize], options| {
            Conv2d::pack(&zeros(weight), None, options, DType::F32, device)
        };
        let default = Conv2dOptions::default();
        let refused = |r: Result<Conv2d>| r.unwrap_err().to_string();
        assert!(refused(pack(&[4, 3, 3], default)).contains("oc, ic, kh, kw"));
        assert!(refused(pack(&[4, 0, 3, 3], default)).contains("dim of 0"));
        assert!(
            refused(pack(
                &[4, 2, 3, 3],
                Conv2dOptions {
                    stride: 0,
                    ..default
                }
            ))
            .contains("stride")
        );
        let winograd = Conv2dOptions {
            stride: 2,
            algorithm: Algorithm::Winograd,
            ..default
        };
        assert!(refused(pack(&[4, 2, 3, 3], winograd)).contains("stride 1"));
        let bias = zeros(&[5]);
        assert!(
            refused(Conv2d::pack(
                &zeros(&[4, 2, 3, 3]),
                Some(bias.view()),
                default,
                DType::F32,
                device
            ))
            .contains("bias")
        );
        let conv = pack(&[4, 2, 3, 3], default).unwrap();
        assert_eq!((conv.in_channels(), conv.out_channels()), (2, 4));
        assert!(conv.forward(&zeros(&[1, 8, 8, 3])).is_err());
        assert!(conv.forward(&zeros(&[8, 8, 2])).is_err());
        assert!(
            conv.forward(&zeros(&[1, 2, 8, 2]))
                .unwrap_err()
                .to_string()
                .contains("3x3")
        );
        assert!(
            conv.forward_with(&zeros(&[1, 8, 8, 2]), Some(zeros(&[1, 6, 5, 4]).view()))
                .is_err()
        );
        assert_eq!(
            conv.forward(&zeros(&[0, 8, 8, 2])).unwrap().shape(),
            [0, 6, 6, 4]
        );
    }
}

/// Weights of one layer are on one device, and so is what it is given. `dispatch_tests` has the operands of `forward_into`.
#[test]
fn weights_of_two_devices_are_errors() {
    let portable = &Device::cpu_with(Tier::Portable).unwrap();
    let zeros =
        |shape: &[usize], device: &Device| Tensor::zeros(shape, DType::F32, device).unwrap();
    for other in test_devices().iter().filter(|other| *other != portable) {
        let options = Conv2dOptions::default();
        let pack = |weight: &Tensor, bias: &Tensor| {
            Conv2d::pack(weight, Some(bias.view()), options, DType::F32, portable)
        };
        let refused = |case, result| {
            assert_two_devices("conv2d", [portable, other], result, case);
        };
        let (weight, bias) = (zeros(&[4, 2, 3, 3], other), zeros(&[4], other));
        refused("bias", pack(&weight, &zeros(&[4], portable)).map(drop));
        // The processor's tiers share memory, so that weights may come from any of them.
        let conv = pack(&weight, &bias).unwrap();
        assert_eq!(conv.device(), portable);
        let x_there = zeros(&[1, 8, 8, 2], other);
        refused("rows", conv.forward_rows(&x_there, None, 0..0).map(drop));
    }
}

/// The form that the options tell is the one that is held, and tells the bytes: channels are whole vectors of every tier here.
#[test]
fn a_form_tells_the_bytes_of_its_weights() {
    for device in &test_devices() {
        // bf16 where the tier has an instruction for it.
        let direct = match device.tier() {
            Tier::Avx512Bf16 => WeightForm::Dense(DType::BF16),
            _ => WeightForm::Dense(DType::F32),
        };
        for (oc, kernel, algorithm, form) in [
            (32, 3, Algorithm::Auto, WeightForm::Winograd),
            (32, 3, Algorithm::Winograd, WeightForm::Winograd),
            (32, 3, Algorithm::Direct, direct),
            (32, 1, Algorithm::Auto, direct),
            (3, 3, Algorithm::Auto, WeightForm::Dense(DType::F32)),
            (3, 3, Algorithm::Winograd, WeightForm::Winograd),
        ] {
            let case = Case::new(
                [1, 4, 4, 32],
                [oc, kernel, kernel],
                Conv2dOptions::default(),
                DType::BF16,
            );
            let conv = case.pack(algorithm, device);
            let shape = [oc, 32, kernel, kernel];
            let told = conv.options.weight_form(shape, DType::BF16, device);
            assert_eq!(
                (conv.form(), told),
                (form, form),
                "{oc} {kernel} {algorithm:?}"
            );
            let bytes = form.matrix_bytes(oc, 32 * kernel * kernel) as usize;
            // Three outputs are padded to a vector: in Winograd's form the weights too.
            let lanes = match conv.device().tier() {
                Tier::Avx512 | Tier::Avx512Bf16 => 16,
                _ => 8,
            };
            let (weights, bias) = match form {
                _ if oc == 32 => (bytes, 32 * 4),
                WeightForm::Winograd => (bytes / oc * lanes, lanes * 4),
                WeightForm::Dense(_) => (bytes, lanes * 4),
            };
            assert_eq!(conv.byte_len(), weights + bias, "{device} {algorithm:?}");
        }
    }
}

#[test]
fn a_dim_of_one_may_have_any_stride() {
    // One column of outputs, where the direct algorithm computes and drops four others.
    let case = Case::new(
        [1, 20, 5, 8],
        [32, 5, 5],
        Conv2dOptions::default(),
        DType::F32,
    );
    for device in &test_devices() {
        let (conv, x) = (
            case.pack(Algorithm::Direct, device),
            case.x.to_device(device).unwrap(),
        );
        let (residual, shape) = ([0f32; 16 * 32], [1, 16, 1, 32]);
        let residual =
            View::from_slice_strided(&residual, shape, [usize::MAX, 32, usize::MAX, 1], device);
        let got = conv.forward_with(&x, Some(residual.unwrap())).unwrap();
        assert_eq!(floats(&got), floats(&conv.forward(&x).unwrap()));
    }
}
