//! Convolutions.

use crate::support::{FLOATS, Pair, Tolerance, sizes, tensor};
use xdit_kernels::{
    DType, Device, Tensor,
    conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding},
};

/// Sums of up to 4608 products, in another order.
fn assert_like_cpu(what: &str, got: &Tensor, want: &Tensor) {
    let tolerance = Tolerance {
        of_greatest: 1e-5,
        neighbours: 1.0,
    };
    tolerance.assert(what, got, want);
}

/// Input, channels out, side of the kernel, stride, padding, and whether the input is doubled.
type Case = ([usize; 4], usize, usize, usize, usize, bool);

const CASES: [Case; 5] = [
    ([2, 5, 7, 16], 40, 3, 1, 1, false),
    ([1, 9, 6, 3], 5, 3, 2, 1, false),
    ([1, 9, 6, 8], 3, 3, 1, 1, true),
    ([1, 4, 6, 24], 130, 1, 1, 0, false),
    // One output, whatever the stride.
    ([1, 1, 1, 8], 8, 1, 1 << 40, 0, false),
];

/// As the decoder has them: many blocks, and more channels than a tile.
const LARGE: [Case; 2] = [
    ([1, 65, 67, 128], 256, 3, 1, 1, false),
    ([1, 33, 34, 512], 512, 3, 1, 1, true),
];

#[test]
#[ignore = "needs a GPU"]
fn convolutions_are_those_of_the_processor() {
    let Pair { cpu, gpu } = Pair::new();
    for dtype in FLOATS {
        for (shape, oc, k, stride, padding, upsample) in sizes(&CASES, &LARGE) {
            let x = tensor(&shape, dtype, 1, &cpu);
            let weight = tensor(&[oc, shape[3], k, k], dtype, 2, &cpu);
            let bias = tensor(&[oc], dtype, 3, &cpu);
            let options = Conv2dOptions {
                stride,
                padding: Padding::all(padding),
                algorithm: Algorithm::Direct,
                upsample,
            };
            let pack = |device: &Device| {
                Conv2d::pack(&weight, Some(bias.view()), options, dtype, device).unwrap()
            };
            let (on_cpu, on_gpu) = (pack(&cpu), pack(&gpu));
            let least = on_gpu.form().matrix_bytes(oc, shape[3] * k * k);
            assert!(on_gpu.byte_len() as u64 >= least);
            let there = x.to_device(&gpu).unwrap();
            let want = on_cpu.forward(&x).unwrap();
            assert_like_cpu("conv2d", &on_gpu.forward(&there).unwrap(), &want);
            // The lower rows, and something that is added to them.
            let rows = want.dim(1) / 2..want.dim(1);
            let more = tensor(&[shape[0], rows.len(), want.dim(2), oc], dtype, 5, &cpu);
            let want = on_cpu.forward_rows(&x, Some(more.view()), rows.clone());
            let more = more.to_device(&gpu).unwrap();
            let got = on_gpu.forward_rows(&there, Some(more.view()), rows);
            assert_like_cpu("conv2d", &got.unwrap(), &want.unwrap());
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn inputs_of_another_dtype_than_the_weights_are_widened() {
    let Pair { cpu, gpu } = Pair::new();
    for (input, weights) in [(DType::BF16, DType::F32), (DType::F32, DType::F16)] {
        let x = tensor(&[1, 5, 4, 8], input, 1, &cpu);
        let weight = tensor(&[9, 8, 3, 3], weights, 2, &cpu);
        let more = tensor(&[1, 3, 2, 9], input, 3, &cpu);
        let on = |device: &Device| {
            let options = Conv2dOptions {
                algorithm: Algorithm::Direct,
                ..Conv2dOptions::default()
            };
            let conv = Conv2d::pack(&weight, None, options, weights, device).unwrap();
            let [x, more] = [&x, &more].map(|t| t.to_device(device).unwrap());
            conv.forward_with(&x, Some(more.view())).unwrap()
        };
        assert_like_cpu("conv2d", &on(&gpu), &on(&cpu));
    }
}

#[test]
#[ignore = "needs a GPU"]
fn sizes_that_32_bits_do_not_count_are_errors() {
    let Pair { cpu, gpu } = Pair::new();
    let weight = tensor(&[1, 8, 1, 1], DType::F32, 1, &cpu);
    let options = Conv2dOptions {
        padding: Padding {
            left: 1 << 30,
            ..Padding::default()
        },
        stride: 1 << 29,
        ..Conv2dOptions::default()
    };
    let conv = Conv2d::pack(&weight, None, options, DType::F32, &gpu).unwrap();
    let x = tensor(&[1, 1, 1, 8], DType::F32, 1, &cpu);
    let error = conv.forward(&x.to_device(&gpu).unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("at most 2^29 columns"),
        "{error}"
    );
}
