//! Operations on a GPU, or on the virtual one, against the processor: strided operands, every dtype, parameters of other dtypes.
//! Where there is none, each of these tests fails: they are run by name (`cargo test -p xdit-kernels --features cuda cuda_ops_tests
//! -- --ignored`). Kernels themselves are tested in `tests/gpu-kernels`; here it is what they are given.

use crate::{
    DType, Device, Result, Tensor, TensorMut, View,
    activation::{Activation, activation, gated},
    elementwise::{add, add_into, clamp, gate_residual, scale_shift, sub, weighted_sum},
    embedding::embedding,
    layout::{cast, contiguous, copy_into},
    norm::{layer_norm, layer_norm_into, layer_norm_modulate, layer_norm_shift, rms_norm},
    pixels::rgb8,
    rope::{HeadNorm, QkNormRope, layer_norm_rope, qk_norm_rope_into, rms_norm_rope, rope_table},
    softmax::softmax,
    sums::RunningSums,
    testing::{FLOATS, assert_like_cpu, floats, gpu, tensor},
};

/// Asserts that an operation gives on the GPU what it gives on the processor.
fn assert_same(what: &str, of: impl Fn(&Device) -> Result<Tensor>) {
    assert_like_cpu(what, &of(&gpu()).unwrap(), &of(&Device::cpu()).unwrap());
}

/// [b, l, c] out of a longer last dim.
fn part(shape: [usize; 3], margin: usize, dtype: DType, seed: usize, device: &Device) -> Tensor {
    tensor(
        &[shape[0], shape[1], shape[2] + margin],
        dtype,
        seed,
        device,
    )
}

fn inner<'a>(x: &'a Tensor, margin: usize, c: usize) -> View<'a> {
    x.view().narrow(2, margin / 2, c).unwrap()
}

/// Shapes whose rows are whole vectors and shapes whose rows are not, with and without a margin.
const SHAPES: [([usize; 3], usize); 4] = [
    ([2, 3, 64], 0),
    ([2, 3, 24], 16),
    ([2, 2, 7], 3),
    ([1, 2, 130], 1),
];

#[test]
#[ignore = "needs a GPU"]
fn norms_and_softmax() {
    for dtype in FLOATS {
        for other in [dtype, DType::F32, DType::F16] {
            for (shape, margin) in SHAPES {
                let [b, _, c] = shape;
                let x = |device: &Device| part(shape, margin, dtype, 1, device);
                let weight = |device: &Device| tensor(&[c], other, 2, device);
                // Chunks of a longer projection.
                let chunks = |device: &Device| tensor(&[b, 3 * c], other, 3, device);
                assert_same("layer_norm", |device| {
                    let (x, w) = (x(device), weight(device));
                    layer_norm(inner(&x, margin, c), Some(w.view()), Some(w.view()), 1e-5)
                });
                assert_same("layer_norm_modulate", |device| {
                    let (x, m) = (x(device), chunks(device));
                    let (shift, scale) = (m.view().narrow(1, 0, c)?, m.view().narrow(1, 2 * c, c)?);
                    layer_norm_modulate(inner(&x, margin, c), shift, scale, 1e-5)
                });
                assert_same("layer_norm_shift", |device| {
                    let (x, w, m) = (x(device), weight(device), chunks(device));
                    layer_norm_shift(inner(&x, margin, c), &w, m.view().narrow(1, c, c)?, 1e-5)
                });
                assert_same("rms_norm", |device| {
                    let (x, w) = (x(device), weight(device));
                    rms_norm(inner(&x, margin, c), Some(w.view()), 1e-5)
                });
                assert_same("softmax", |device| softmax(inner(&x(device), margin, c)));
            }
        }
    }
    // A row for each block, kept in registers; columns, which are copied first; an output that is a part.
    assert_same("wide", |d| {
        layer_norm(&tensor(&[2, 3072], DType::BF16, 1, d), None, None, 1e-5)
    });
    assert_same("wide", |d| softmax(&tensor(&[2, 9000], DType::F32, 1, d)));
    assert_same("columns", |d| {
        layer_norm(
            tensor(&[5, 9], DType::F32, 1, d).view().transpose(0, 1)?,
            None,
            None,
            1e-5,
        )
    });
    assert_same("part", |device| {
        let x = tensor(&[2, 5], DType::F32, 1, device);
        let mut out = TensorMut::zeros([2, 9], DType::F32, device)?;
        layer_norm_into(&x, None, None, 1e-5, out.view_mut().narrow(1, 3, 5)?)?;
        Ok(out.freeze())
    });
}

#[test]
#[ignore = "needs a GPU"]
fn elements() {
    for dtype in FLOATS {
        for (shape, margin) in SHAPES {
            let [b, _, c] = shape;
            let x = |device: &Device| part(shape, margin, dtype, 1, device);
            for other in FLOATS {
                assert_same("add, last dims", |device| {
                    add(
                        inner(&x(device), margin, c),
                        &tensor(&[c], other, 2, device),
                    )
                });
                assert_same("weighted_sum", |device| {
                    let y = part(shape, margin, other, 2, device);
                    weighted_sum(
                        inner(&x(device), margin, c),
                        0.7,
                        inner(&y, margin, c),
                        -1.3,
                    )
                });
                assert_same("gate_residual", |device| {
                    let (y, gate) = (
                        part(shape, margin, other, 2, device),
                        tensor(&[b, 2 * c], other, 3, device),
                    );
                    let gate = gate.view().narrow(1, c, c)?;
                    gate_residual(inner(&y, margin, c), gate, inner(&x(device), margin, c))
                });
                assert_same("gated", |device| {
                    let y = part(shape, margin, other, 2, device);
                    gated(
                        inner(&x(device), margin, c),
                        inner(&y, margin, c),
                        Activation::GeluErf,
                    )
                });
            }
            assert_same("sub", |d| {
                sub(inner(&x(d), margin, c), inner(&x(d), margin, c))
            });
            assert_same("clamp", |d| clamp(inner(&x(d), margin, c), -1.5, 2.0));
            assert_same("scale_shift", |d| {
                scale_shift(inner(&x(d), margin, c), 0.3, -0.2)
            });
            for act in [
                Activation::GeluTanh,
                Activation::QuickGelu,
                Activation::Silu,
                Activation::Relu,
            ] {
                assert_same("activation", |d| activation(inner(&x(d), margin, c), act));
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn heads_and_rotation() {
    for dtype in FLOATS {
        for d in [64, 10, 264] {
            let table = |device: &Device| rope_table(&[0.5, 1.0, 7.0], d, 1e4, device);
            let joint = |device: &Device, index: usize| -> Result<Tensor> {
                let qkv = tensor(&[2, 3, 3, 2, d], dtype, 1, device);
                let (weight, bias) = (
                    tensor(&[d], DType::F32, 2, device),
                    tensor(&[d], dtype, 3, device),
                );
                let (cos, sin) = table(device)?;
                let options = QkNormRope {
                    norm_q: Some(HeadNorm::Rms(weight.view())),
                    norm_k: Some(HeadNorm::Layer {
                        weight: weight.view(),
                        bias: bias.view(),
                    }),
                    eps: 1e-6,
                    rope: Some((cos.view(), sin.view())),
                };
                // Image rows behind text rows.
                let new = || TensorMut::zeros([2, 5, 2, d], dtype, device);
                let mut outs = [new()?, new()?, new()?];
                let [q, k, v] = outs.each_mut().map(|out| out.view_mut().narrow(1, 2, 3));
                qk_norm_rope_into(&qkv, &options, q?, k?, v?)?;
                let [q, k, v] = outs.map(TensorMut::freeze);
                Ok([q, k, v].into_iter().nth(index).unwrap())
            };
            for index in 0..3 {
                assert_same("qk_norm_rope", |device| joint(device, index));
            }
            let x = |device: &Device| tensor(&[2, 3, 2, d], dtype, 1, device);
            let one = |device: &Device| tensor(&[d], dtype, 2, device);
            assert_same("rms_norm_rope", |device| {
                let (cos, sin) = table(device)?;
                rms_norm_rope(
                    &x(device),
                    Some(one(device).view()),
                    1e-6,
                    Some((cos.view(), sin.view())),
                )
            });
            assert_same("layer_norm_rope", |device| {
                layer_norm_rope(
                    &x(device),
                    one(device).view(),
                    one(device).view(),
                    1e-6,
                    None,
                )
            });
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn copies_casts_and_rows_of_tables() {
    for dtype in FLOATS {
        let x = |device: &Device| tensor(&[2, 3, 10, 4, 5], dtype, 1, device);
        for order in [
            [0, 1, 2, 3, 4],
            [0, 2, 1, 3, 4],
            [4, 0, 1, 3, 2],
            [2, 3, 4, 0, 1],
            [1, 0, 4, 2, 3],
        ] {
            assert_same("permuted", |device| {
                contiguous(x(device).view().permute(&order)?)
            });
            for to in FLOATS {
                assert_same("cast", |device| cast(x(device).view().permute(&order)?, to));
            }
        }
        assert_same("transposed", |d| {
            contiguous(tensor(&[2, 33, 40], dtype, 1, d).view().transpose(1, 2)?)
        });
        assert_same("rows", |d| {
            contiguous(tensor(&[7, 48], dtype, 1, d).view().narrow(1, 16, 16)?)
        });
        assert_same("odd rows", |d| {
            contiguous(tensor(&[7, 48], dtype, 1, d).view().narrow(1, 3, 5)?)
        });
        assert_same("cat", |device| {
            let (a, b) = (
                tensor(&[3, 4], dtype, 1, device),
                tensor(&[3, 2], dtype, 2, device),
            );
            Tensor::cat(&[a.view(), b.view(), a.view()], 1)
        });
        assert_same("into a transposed output", |device| {
            let x = tensor(&[9, 12], dtype, 1, device);
            let mut out = TensorMut::zeros([9, 30], dtype, device)?;
            copy_into(&x, out.view_mut().narrow(1, 7, 12)?)?;
            Ok(out.freeze())
        });
        assert_same("embedding", |device| {
            let ids = Tensor::from_slice(&[4u32, 0, 2, 2], [4], device)?;
            embedding(
                tensor(&[5, 24], dtype, 1, device).view().narrow(1, 8, 16)?,
                &ids,
            )
        });
        assert_same("bytes", |device| {
            let bytes = Tensor::from_slice(&[0u8, 1, 255, 7, 9, 100], [2, 3], device)?;
            cast(bytes.view().transpose(0, 1)?, dtype)
        });
    }
    for dtype in FLOATS {
        for size in [[2, 3, 4, 6], [2, 3, 3, 5]] {
            let bytes = |device: &Device| -> Vec<u8> {
                let planes = scale_shift(&tensor(&size, dtype, 1, device), 0.06, 0.5).unwrap();
                rgb8(&planes).unwrap().to_vec_blocking().unwrap()
            };
            assert_eq!(bytes(&gpu()), bytes(&Device::cpu()));
        }
    }
    let device = gpu();
    let ids = Tensor::from_slice(&[1u32, 5], [2], &device).unwrap();
    let rows = floats(&embedding(&tensor(&[5, 3], DType::F32, 1, &device), &ids).unwrap());
    assert!(rows[..3].iter().all(|x| x.is_finite()) && rows[3..].iter().all(|x| x.is_nan()));
    let masks = Tensor::from_slice(&[1.5f32, -2.0, 300.0, f32::NAN], [2, 2], &device).unwrap();
    let masks = cast(masks.view().transpose(0, 1).unwrap(), DType::U8).unwrap();
    assert_eq!(masks.to_vec_blocking::<u8>().unwrap(), [1, 255, 0, 0]);
    let ids = Tensor::from_slice(&[1u32, 2, 3, 4], [2, 2], &device).unwrap();
    let turned = contiguous(ids.view().transpose(0, 1).unwrap()).unwrap();
    assert_eq!(turned.to_vec_blocking::<u32>().unwrap(), [1, 3, 2, 4]);
    assert!(cast(&ids, DType::F32).is_err());
}

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
    let assert_sums = |of: &dyn Fn(&mut RunningSums, &Device) -> Result<()>| {
        let (want, got) = (summed(&Device::cpu(), of), summed(&gpu(), of));
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
            for (shape, first, every) in
                [([2, 7, 16], 0, 1), ([2, 7, 5], 1, 3), ([1, 40, 300], 2, 1)]
            {
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
            broken(&gpu()).unwrap().first_not_finite_blocking().unwrap(),
            Some(7)
        );
        assert_eq!(
            tensor(&[9], dtype, 1, &gpu())
                .first_not_finite_blocking()
                .unwrap(),
            None
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn copies_of_operands_are_made_on_the_queue_of_the_output() {
    let compute = gpu();
    let x = tensor(&[40, 96], DType::F32, 1, &compute);
    let send = compute.fork();
    send.wait(&compute.record());
    // Work of the first queue, behind which a copy that is made there comes late.
    let mut busy = x.clone();
    for _ in 0..8 {
        busy = add(&busy, &busy).unwrap();
    }
    let columns = x.view().transpose(0, 1).unwrap();
    let mut out = TensorMut::zeros([96, 40], DType::F32, &send).unwrap();
    add_into(columns, columns, out.view_mut()).unwrap();
    let got = floats(&out.freeze());
    let cpu = tensor(&[40, 96], DType::F32, 1, &Device::cpu());
    let columns = cpu.view().transpose(0, 1).unwrap();
    assert_eq!(got, floats(&add(columns, columns).unwrap()));
}
