//! Single kernels, in bf16, with the bytes and operations that none can do without.

use crate::{Failure, case::BenchCase};
use xdit_kernels::{
    DType, Device, TensorMut,
    activation::{Activation, activation},
    attention::{Attention, AttnInput, Flash},
    conv2d::{Conv2d, Conv2dOptions, Padding},
    elementwise::gate_residual,
    group_norm::group_norm,
    layout::copy_into,
    linear::Linear,
    norm::layer_norm_modulate,
    rope::{HeadNorm, QkNormRope, qk_norm_rope_into},
    softmax::softmax,
};
use xdit_tests::random::random;

const DTYPE: DType = DType::BF16;
/// Bytes of a number.
const SIZE: f64 = 2.0;

/// An operation with its operands.
pub(crate) struct Operation {
    pub(crate) run: Box<dyn FnMut() -> Result<(), Failure>>,
    /// Bytes that are read and written at least: inputs, weights and the result, once.
    pub(crate) bytes: f64,
    /// Operations of the products; 0 where only bytes count.
    pub(crate) flops: f64,
}

/// Makes the operands of a case. `None` for a case that is no kernel.
pub(crate) fn make(case: &BenchCase, device: &Device) -> Result<Option<Operation>, Failure> {
    let of = |shape: &[usize]| random(shape, DTYPE, device);
    let operation = match &*case.op {
        "attention" => {
            let (tokens, heads, d) = (case.size("tokens")?, case.size("heads")?, case.size("d")?);
            let shape = [1, tokens, heads, d];
            let (q, k, v) = (of(&shape)?, of(&shape)?, of(&shape)?);
            let count = shape.iter().product::<usize>() as f64;
            Operation {
                run: Box::new(move || {
                    // The result alone, as torch gives it.
                    Flash.attend(&AttnInput::new(&q, &k, &v).with_lse(false))?;
                    Ok(())
                }),
                bytes: 4.0 * count * SIZE,
                flops: 4.0 * count * tokens as f64,
            }
        }
        "linear" => {
            let (rows, k, n) = (case.size("rows")?, case.size("k")?, case.size("n")?);
            let x = of(&[rows, k])?;
            let (weight, bias) = (of(&[n, k])?, of(&[n])?);
            let layer = Linear::pack(weight.view(), Some(bias.view()), DTYPE, device)?;
            Operation {
                run: Box::new(move || Ok(layer.forward(&x).map(drop)?)),
                bytes: (rows * k + n * k + rows * n) as f64 * SIZE,
                flops: 2.0 * (rows * k) as f64 * n as f64,
            }
        }
        "copy" => {
            let shape = [case.size("rows")?, case.size("c")?];
            let x = of(&shape)?;
            let mut out = TensorMut::zeros(shape, DTYPE, device)?;
            Operation {
                run: Box::new(move || Ok(copy_into(&x, out.view_mut())?)),
                bytes: 2.0 * (shape[0] * shape[1]) as f64 * SIZE,
                flops: 0.0,
            }
        }
        "layer_norm_modulate" => {
            let (rows, c) = (case.size("rows")?, case.size("c")?);
            let (x, shift, scale) = (of(&[1, rows, c])?, of(&[1, c])?, of(&[1, c])?);
            Operation {
                run: Box::new(move || Ok(layer_norm_modulate(&x, &shift, &scale, 1e-6).map(drop)?)),
                bytes: 2.0 * (rows * c) as f64 * SIZE,
                flops: 0.0,
            }
        }
        "qk_norm_rope" => qk_norm_rope(case, device)?,
        "gate_residual" => {
            let (rows, c) = (case.size("rows")?, case.size("c")?);
            let (x, y, gate) = (of(&[1, rows, c])?, of(&[1, rows, c])?, of(&[1, c])?);
            Operation {
                run: Box::new(move || Ok(gate_residual(&x, &gate, &y).map(drop)?)),
                bytes: 3.0 * (rows * c) as f64 * SIZE,
                flops: 0.0,
            }
        }
        "gelu" | "softmax" => {
            let (rows, c) = (case.size("rows")?, case.size("c")?);
            let x = of(&[1, rows, c])?;
            let gelu = case.op == "gelu";
            Operation {
                run: Box::new(move || {
                    let out = match gelu {
                        true => activation(&x, Activation::GeluTanh),
                        false => softmax(&x),
                    };
                    Ok(out.map(drop)?)
                }),
                bytes: 2.0 * (rows * c) as f64 * SIZE,
                flops: 0.0,
            }
        }
        "group_norm_silu" => {
            let (side, c) = (case.size("side")?, case.size("c")?);
            let (x, weight, bias) = (of(&[1, side, side, c])?, of(&[c])?, of(&[c])?);
            Operation {
                run: Box::new(
                    move || Ok(group_norm(&x, 32, &weight, &bias, 1e-6, true).map(drop)?),
                ),
                // Read for the sums, and again to be written.
                bytes: 3.0 * (side * side * c) as f64 * SIZE,
                flops: 0.0,
            }
        }
        "conv2d" => {
            let (side, c) = (case.size("side")?, case.size("c")?);
            let (x, weight, bias) = (of(&[1, side, side, c])?, of(&[c, c, 3, 3])?, of(&[c])?);
            let options = Conv2dOptions {
                padding: Padding::all(1),
                ..Conv2dOptions::default()
            };
            let layer = Conv2d::pack(&weight, Some(bias.view()), options, DTYPE, device)?;
            let pixels = (side * side) as f64;
            Operation {
                run: Box::new(move || Ok(layer.forward(&x).map(drop)?)),
                bytes: (2.0 * pixels * c as f64 + (9 * c * c) as f64) * SIZE,
                flops: 18.0 * pixels * (c * c) as f64,
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(operation))
}

fn qk_norm_rope(case: &BenchCase, device: &Device) -> Result<Operation, Failure> {
    let (rows, heads, d) = (case.size("rows")?, case.size("heads")?, case.size("d")?);
    let qkv = random(&[1, rows, 3, heads, d], DTYPE, device)?;
    let weight = random(&[d], DTYPE, device)?;
    let table = random(&[rows, d], DType::F32, device)?;
    let new = || TensorMut::zeros([1, rows, heads, d], DTYPE, device);
    let [mut q, mut k, mut v] = [new()?, new()?, new()?];
    let run = move || {
        let options = QkNormRope {
            norm_q: Some(HeadNorm::Rms(weight.view())),
            norm_k: Some(HeadNorm::Rms(weight.view())),
            eps: 1e-6,
            rope: Some((table.view(), table.view())),
        };
        Ok(qk_norm_rope_into(
            &qkv,
            &options,
            q.view_mut(),
            k.view_mut(),
            v.view_mut(),
        )?)
    };
    Ok(Operation {
        run: Box::new(run),
        bytes: (6 * rows * heads * d) as f64 * SIZE + (2 * rows * d) as f64 * 4.0,
        flops: 0.0,
    })
}
