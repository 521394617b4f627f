//! Pieces give the bytes of the whole, and a GPU is given the whole.

use xdit_comm::threads;
use xdit_kernels::attention::Mask;
use xdit_kernels::{
    Device,
    conv2d::{Conv2dOptions, Padding},
};

use super::*;

fn random(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 37 + seed * 101) as f32 * 0.7).sin())
        .collect();
    Tensor::from_slice(&values, shape, &Device::cpu()).unwrap()
}

/// A rank of a group of one.
fn told() -> Told {
    let mut groups = threads::run(1, Ok).unwrap();
    Told(Progress::new(
        Some(&groups.remove(0)),
        &Device::cpu(),
        &CancelToken::default(),
    ))
}

#[test]
fn pieces_of_attention_are_the_bytes_of_the_whole() {
    let seen: Vec<u8> = (0..2 * 523).map(|i| u8::from(i % 7 != 3)).collect();
    let seen = Tensor::from_slice(&seen, [2, 523], &Device::cpu()).unwrap();
    for (dtype, key_mask) in [
        (DType::F32, None),
        (DType::F32, Some(seen.view())),
        (DType::BF16, None),
    ] {
        let x = |seed| random(&[2, 523, 3, 20], seed).to_dtype(dtype).unwrap();
        let [q, k, v] = [1, 2, 3].map(x);
        let mask = Mask::default().with_key_mask(key_mask);
        let input = AttnInput::new(&q, &k, &v).with_mask(mask);
        let whole = Flash.attend(&input).unwrap();
        for least in [1, 84, 100, 522] {
            let pieces = told().attend_in_pieces(&input, 1, least).unwrap();
            assert!(
                pieces.out.host_bytes_blocking().unwrap()
                    == whole.out.host_bytes_blocking().unwrap(),
                "{least}"
            );
            assert!(
                pieces.lse.host_bytes_blocking().unwrap()
                    == whole.lse.host_bytes_blocking().unwrap(),
                "{least}"
            );
            // Twice the same keys, added up.
            let add = |attention: &mut dyn FnMut(Option<AttnSum>) -> AttnSum| {
                let first = attention(None);
                attention(Some(first)).freeze()
            };
            let whole = add(&mut |sum| Flash.accumulate(&input, sum).unwrap());
            let pieces =
                add(&mut |sum| (told().accumulate_in_pieces(&input, sum, 1, least)).unwrap());
            for (pieces, whole) in [(pieces.out, whole.out), (pieces.lse, whole.lse)] {
                assert!(
                    pieces.host_bytes_blocking().unwrap() == whole.host_bytes_blocking().unwrap(),
                    "{least}"
                );
            }
        }
    }
}

#[test]
fn pieces_of_linear_layers_are_the_bytes_of_the_whole() {
    for dtype in [DType::F32, DType::BF16] {
        let cast = |tensor: Tensor| tensor.to_dtype(dtype).unwrap();
        let (weight, bias) = (random(&[70, 40], 1), random(&[70], 2));
        let layer = Linear::pack(weight.view(), Some(bias.view()), dtype, &Device::cpu()).unwrap();
        let [a, b] = [[2, 301, 30], [2, 301, 10]].map(|shape| cast(random(&shape, 3)));
        let (residual, gate) = (cast(random(&[2, 301, 70], 4)), cast(random(&[2, 70], 5)));
        let (residual, gate) = (residual.view(), gate.view());
        for epilogue in [
            Epilogue::None,
            Epilogue::Residual(residual),
            Epilogue::GateResidual { gate, residual },
            Epilogue::Mul(residual),
        ] {
            let x = [a.view(), b.view()];
            let whole = layer.forward_with(&x, epilogue).unwrap();
            for least in [1, 6, 64, 300] {
                let pieces = linear_in_pieces(&layer, &x, epilogue, &mut told(), 1, least);
                assert!(
                    pieces.unwrap().host_bytes_blocking().unwrap()
                        == whole.host_bytes_blocking().unwrap(),
                    "{least}"
                );
            }
        }
    }
}

#[test]
fn pieces_of_convolutions_are_the_bytes_of_the_whole() {
    for (upsample, dtype) in [
        (false, DType::F32),
        (true, DType::F32),
        (false, DType::BF16),
    ] {
        let options = Conv2dOptions {
            padding: Padding::all(1),
            upsample,
            ..Conv2dOptions::default()
        };
        let (weight, bias) = (random(&[32, 32, 3, 3], 1), random(&[32], 2));
        let conv =
            Conv2d::pack(&weight, Some(bias.view()), options, dtype, &Device::cpu()).unwrap();
        let x = random(&[1, 75, 21, 32], 3).to_dtype(dtype).unwrap();
        let (lines, width) = if upsample { (2..150, 42) } else { (1..75, 21) };
        let residual = random(&[1, lines.len(), width, 32], 4)
            .to_dtype(dtype)
            .unwrap();
        let whole = conv
            .forward_rows(&x, Some(residual.view()), lines.clone())
            .unwrap();
        let mut out = TensorMut::zeros(whole.shape(), dtype, &Device::cpu()).unwrap();
        for start in (0..lines.len()).step_by(LEAST_LINES) {
            let len = LEAST_LINES.min(lines.len() - start);
            let residual = residual.view().narrow(1, start, len).unwrap();
            let piece = lines.start + start..lines.start + start + len;
            let out = out.view_mut().narrow(1, start, len).unwrap();
            conv.forward_rows_into(&x, Some(residual), piece, out)
                .unwrap();
        }
        assert!(
            out.freeze().host_bytes_blocking().unwrap() == whole.host_bytes_blocking().unwrap(),
            "{upsample} {dtype}"
        );
    }
}

/// A call on a GPU is one operation, however large. An event follows a group of reports, and `settle` waits for it.
#[test]
#[ignore = "needs a GPU"]
fn calls_on_a_gpu_are_whole_and_waited_for_in_groups() {
    let gpu = Device::cuda(0).unwrap();
    let mut groups = threads::run(1, Ok).unwrap();
    let progress = Progress::new(Some(&groups.remove(0)), &gpu, &CancelToken::default());
    let mut told = Told(progress.clone());
    let queued = || {
        let queued = progress.queued.lock().unwrap();
        (queued.reports, queued.events.len())
    };
    let on_gpu = |shape: &[usize], seed| random(shape, seed).to_device(&gpu).unwrap();
    let [q, k, v] = [1, 2, 3].map(|seed| on_gpu(&[1, 70, 2, 32], seed));
    let input = AttnInput::new(&q, &k, &v);
    // A report before and after each, and none of pieces, which would have one row.
    told.attend_in_pieces(&input, 1, 1).unwrap();
    assert_eq!(queued(), (2, 0));
    let sum = told.accumulate_in_pieces(&input, None, 1, 1).unwrap();
    told.accumulate_in_pieces(&input, Some(sum), 1, 1).unwrap();
    assert_eq!(queued(), (6, 0));
    let layer = Linear::pack(on_gpu(&[16, 8], 4).view(), None, DType::F32, &gpu).unwrap();
    let x = on_gpu(&[1, 70, 8], 5);
    linear_in_pieces(&layer, &[x.view()], Epilogue::None, &mut told, 1, 1).unwrap();
    assert_eq!(queued(), (7, 0));
    for _ in 7..REPORTS {
        progress.note().unwrap();
    }
    assert_eq!(queued(), (0, 1));
    progress.settle().unwrap();
    assert_eq!(queued(), (0, 0));
}
