//! Refused calls: shapes that do not fit, and operands of two devices.

use super::*;
use crate::{Tier, testing::assert_two_devices};

#[test]
fn wrong_shapes_are_errors() {
    for device in &test_devices() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).unwrap();
        let (w, b) = (zeros(&[4, 6]), zeros(&[3]));
        assert!(Linear::pack(w.view(), Some(b.view()), DType::F32, device).is_err());
        assert!(Linear::pack(b.view(), None, DType::F32, device).is_err());
        assert!(Linear::pack_rows(&[], DType::F32, device).is_err());
        assert!(
            Linear::pack_rows(
                &[(w.view(), None), (zeros(&[4, 5]).view(), None)],
                DType::F32,
                device
            )
            .is_err()
        );
        let layer = Linear::pack(w.view(), None, DType::F32, device).unwrap();
        let message = layer.forward(&zeros(&[2, 5])).unwrap_err().to_string();
        assert!(
            message.contains("linear") && message.contains("sum to 6"),
            "{message}"
        );
        let x = zeros(&[2, 6]);
        assert!(layer.forward_with(&[], Epilogue::None).is_err());
        assert!(
            layer
                .forward_with(
                    &[zeros(&[2, 3]).view(), zeros(&[1, 3]).view()],
                    Epilogue::None
                )
                .is_err()
        );
        assert!(
            layer
                .forward_with(&[x.view()], Epilogue::Residual(zeros(&[2, 5]).view()))
                .is_err()
        );
        let (gate, residual) = (zeros(&[1, 4]), zeros(&[2, 4]));
        let gated = Epilogue::GateResidual {
            gate: gate.view(),
            residual: residual.view(),
        };
        assert!(layer.forward_with(&[x.view()], gated).is_err());
        let mut out = TensorMut::zeros([2, 5], DType::F32, device).unwrap();
        assert!(
            layer
                .forward_into(&[x.view()], Epilogue::None, out.view_mut())
                .is_err()
        );
        // No rows, no outputs: nothing to do, and no error.
        assert_eq!(layer.forward(&zeros(&[0, 6])).unwrap().shape(), [0, 4]);
        let empty = Linear::pack(zeros(&[0, 6]).view(), None, DType::F32, device).unwrap();
        assert_eq!(empty.forward(&x).unwrap().shape(), [2, 0]);
    }
}

/// Weights of one layer are on one device. `dispatch_tests` has the operands of a call.
#[test]
fn weights_of_two_devices_are_errors() {
    let portable = &Device::cpu_with(Tier::Portable).unwrap();
    let zeros =
        |shape: &[usize], device: &Device| Tensor::zeros(shape, DType::F32, device).unwrap();
    for other in test_devices().iter().filter(|other| *other != portable) {
        let (weight, bias) = (zeros(&[4, 6], portable), zeros(&[4], portable));
        let weight_there = zeros(&[4, 6], other);
        let pack = |parts: &[_]| Linear::pack_rows(parts, DType::F32, portable);
        let refused = |case, parts: &[_]| {
            assert_two_devices("linear", [portable, other], pack(parts).map(drop), case);
        };
        refused("bias", &[(weight_there.view(), Some(bias.view()))]);
        refused(
            "parts",
            &[(weight.view(), None), (weight_there.view(), None)],
        );
        // The processor's tiers share memory, so that weights may come from any of them.
        let layer = pack(&[(weight_there.view(), None)]).unwrap();
        assert_eq!(layer.device(), portable);
    }
}
