//! Every public kernel with shapes, strides and parameters that nobody means: dims up to `usize::MAX` (beside a 0, where
//! memory can hold them), strides of 0 and of 2^63, more padding than memory, in each of the processor's tiers.
//!
//! A call returns, soon, with a result or an error. A result does not depend on the strides of what it was made from, bit by
//! bit, and no byte around an output changes. The tests run optimised, with overflow checks; `ci/miri.sh` runs a few cases
//! under miri, which sees every read that leaves its memory.

mod draw;
mod guard;
mod matrices;
mod pictures;
mod rows;
mod views;

use draw::Draw;
use proptest::prelude::*;

/// One kernel's call with drawn arguments. It panics where the promise is broken.
type Case = fn(&mut Draw<'_>);

/// Every public kernel.
const KERNELS: &[(&str, Case)] = &[
    ("activation", rows::activation),
    ("gated", rows::gated),
    ("elementwise", rows::elementwise),
    ("scale", rows::scale),
    ("gate_residual", rows::gate_residual),
    ("layer_norm", rows::layer_norm),
    ("layer_norm_modulate", rows::layer_norm_modulate),
    ("layer_norm_shift", rows::layer_norm_shift),
    ("rms_norm", rows::rms_norm),
    ("softmax", rows::softmax),
    ("norm_rope", rows::norm_rope),
    ("qk_norm_rope", rows::qk_norm_rope),
    ("rope_table", rows::rope_table),
    ("embedding", rows::embedding),
    ("attention", matrices::attention),
    ("merge", matrices::merge),
    ("linear", matrices::linear),
    ("conv2d", pictures::conv2d),
    ("group_norm", pictures::group_norm),
    ("group_norm_rows", pictures::group_norm_rows),
    ("upsample", pictures::upsample),
    ("copy", views::copy),
    ("cat", views::cat),
    ("view", views::view),
    ("tensor", views::tensor),
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { ProptestConfig::default().cases },
        failure_persistence: None,
        max_shrink_iters: if cfg!(miri) { 0 } else { 4096 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_kernel_returns_and_stays_in_its_memory(tape in prop::collection::vec(any::<u32>(), 48)) {
        for (name, case) in KERNELS {
            let run = || case(&mut Draw::new(&tape));
            if let Err(panic) = std::panic::catch_unwind(run) {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.into()));
                return Err(TestCaseError::fail(format!("{name}: {}", said.unwrap_or_default())));
            }
        }
    }
}

/// The cases by which the faults were found.
mod found {
    use std::sync::LazyLock;
    use xdit_kernels::{
        DType, Device, Tensor, View,
        activation::{Activation, activation},
        attention::{Attention, AttnInput, Flash},
        conv2d::{Conv2d, Conv2dOptions, Padding},
        group_norm::GroupSums,
        linear::Linear,
        norm::layer_norm,
    };

    const ONE: [f32; 4] = [1.0; 4];
    static DEVICE: LazyLock<Device> = LazyLock::new(Device::cpu);

    #[test]
    fn keys_that_repeat_one_row_2_to_the_59_times() {
        let q = View::from_slice(&ONE, [1, 1, 1, 4], &DEVICE).unwrap();
        for lk in [
            1 << 59,
            1 << 60,
            (1 << 61) - 1,
            1 << 62,
            usize::MAX,
            1 << 37,
        ] {
            assert!(
                View::from_slice_strided(&ONE, [1, lk, 1, 4], [0, 0, 0, 1], &DEVICE).is_err(),
                "{lk}"
            );
        }
        let keys = View::from_slice_strided(&ONE, [1, 40, 1, 4], [0, 0, 0, 1], &DEVICE).unwrap();
        let out = Flash.attend(&AttnInput::new(q, keys, keys)).unwrap().out;
        assert!(
            out.to_vec_blocking::<f32>()
                .unwrap()
                .iter()
                .all(|v| (v - 1.0).abs() < 1e-5)
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri ends where memory is refused")]
    fn strides_and_padding_of_2_to_the_63() {
        let weight = Tensor::from_slice(&ONE, [1, 1, 2, 2], &DEVICE).unwrap();
        let x = Tensor::from_slice(&[1f32; 9], [1, 3, 3, 1], &DEVICE).unwrap();
        let conv = |stride, padding| {
            let options = Conv2dOptions {
                stride,
                padding,
                ..Conv2dOptions::default()
            };
            Conv2d::pack(&weight, None, options, DType::F32, &DEVICE)?.forward(&x)
        };
        for stride in [1 << 31, 1 << 32, 1 << 33, 1 << 63, usize::MAX] {
            // One output, wherever the second would be.
            assert_eq!(
                conv(stride, Padding::all(0))
                    .unwrap()
                    .to_vec_blocking::<f32>()
                    .unwrap(),
                [4.0],
                "{stride}"
            );
            for n in [1 << 31, 1 << 32, 1 << 63, usize::MAX] {
                let _ = conv(stride, Padding::all(n));
                let _ = conv(
                    stride,
                    Padding {
                        left: n,
                        ..Padding::default()
                    },
                );
            }
        }
        for n in [(1 << 31) + 1, 1 << 63, usize::MAX] {
            assert!(
                conv(
                    1,
                    Padding {
                        top: n,
                        ..Padding::default()
                    }
                )
                .is_err(),
                "{n}"
            );
        }
        assert!(conv(1, Padding::all(1 << 31)).is_err(), "an output of 2^64");
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri ends where memory is refused")]
    fn rows_of_nothing_are_not_walked() {
        for rows in [1 << 40, 1 << 47, 1 << 60] {
            let empty = View::from_slice::<f32>(&[], [rows, 0], &DEVICE).unwrap();
            assert_eq!(
                activation(empty, Activation::Relu).unwrap().shape(),
                [rows, 0]
            );
            assert_eq!(layer_norm(empty, None, None, 0.0).unwrap().numel(), 0);
            assert!(Linear::pack(empty, None, DType::F32, &DEVICE).is_err());
            let picture = View::from_slice::<f32>(&[], [rows, 0, 1, 1], &DEVICE).unwrap();
            assert!(GroupSums::of(picture, 1).is_err());
        }
    }

    #[test]
    fn a_view_beside_a_dim_of_zero_is_checked() {
        let huge = 1usize << 62;
        assert!(View::from_slice::<f32>(&[], [huge, 0], &DEVICE).is_err());
        assert!(View::from_slice::<f32>(&[], [0, huge, huge], &DEVICE).is_err());
        assert!(View::from_slice_strided::<f32>(&[], [huge, huge, 0], [huge; 3], &DEVICE).is_err());
        // Strides that nobody steps along do no harm, and none are left.
        let view = View::from_slice_strided::<f32>(&[], [3, 0], [usize::MAX; 2], &DEVICE).unwrap();
        assert_eq!(view.narrow(0, 2, 1).unwrap().strides(), [1, 1]);
        assert!(Tensor::zeros([huge, 0], DType::F32, &DEVICE).is_err());
    }
}
