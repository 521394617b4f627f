//! Runs one kernel a number of times on one thread, for a counter of instructions (`ci/instructions.sh`).
//!
//! `cargo run --release -p xdit-kernels --example instructions -- CASE TIER RUNS`
//!
//! Prints the useful work of one run: multiply-adds of a product (those of the definition, not those that an algorithm saves or
//! adds), elements of a row operation.

use std::{env, hint::black_box};
use xdit_kernels::{
    DType, Device, Result, Tensor, Tier,
    activation::{Activation, activation},
    attention::{Attention, AttnInput, Flash},
    conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding},
    linear::Linear,
    norm::layer_norm,
    softmax::softmax,
};

/// A kernel, its work, and what runs it once.
type Case = (usize, Box<dyn Fn() -> Result<Tensor> + Send + Sync>);

fn tensor(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let n = shape.iter().product::<usize>();
    let data: Vec<f32> = (0..n)
        .map(|i| ((i * 7919) % 2003) as f32 * 0.001 - 1.0)
        .collect();
    Tensor::from_slice(&data, shape, device)?.to_dtype(dtype)
}

fn linear(dtype: DType, device: &Device) -> Result<Case> {
    let [m, k, n] = [240, 1024, 1024];
    let weight = tensor(&[n, k], dtype, device)?;
    let linear = Linear::pack(weight.view(), None, dtype, device)?;
    let x = tensor(&[m, k], dtype, device)?;
    Ok((m * k * n, Box::new(move || linear.forward(&x))))
}

fn attention(dtype: DType, device: &Device) -> Result<Case> {
    let [tokens, heads, d] = [512, 4, 128];
    let x = tensor(&[1, tokens, heads, d], dtype, device)?;
    let work = 2 * heads * tokens * tokens * d;
    Ok((
        work,
        Box::new(move || Ok(Flash.attend(&AttnInput::new(&x, &x, &x))?.out)),
    ))
}

fn conv2d(algorithm: Algorithm, device: &Device) -> Result<Case> {
    let [channels, size] = [128, 32];
    let weight = tensor(&[channels, channels, 3, 3], DType::F32, device)?;
    let options = Conv2dOptions {
        padding: Padding::all(1),
        algorithm,
        ..Conv2dOptions::default()
    };
    let conv = Conv2d::pack(weight.view(), None, options, DType::F32, device)?;
    let x = tensor(&[1, size, size, channels], DType::F32, device)?;
    let work = 9 * channels * channels * size * size;
    Ok((work, Box::new(move || conv.forward(&x))))
}

fn rows(dtype: DType, device: &Device, op: fn(&Tensor) -> Result<Tensor>) -> Result<Case> {
    let x = tensor(&[256, 3072], dtype, device)?;
    Ok((x.numel(), Box::new(move || op(&x))))
}

fn case(name: &str, device: &Device) -> Result<Case> {
    match name {
        "linear-f32" => linear(DType::F32, device),
        "linear-bf16" => linear(DType::BF16, device),
        "linear-f16" => linear(DType::F16, device),
        "attention-f32" => attention(DType::F32, device),
        "attention-bf16" => attention(DType::BF16, device),
        "conv2d-direct" => conv2d(Algorithm::Direct, device),
        "conv2d-winograd" => conv2d(Algorithm::Winograd, device),
        "layer-norm-f32" => rows(DType::F32, device, |x| layer_norm(x, None, None, 1e-6)),
        "layer-norm-bf16" => rows(DType::BF16, device, |x| layer_norm(x, None, None, 1e-6)),
        "gelu-bf16" => rows(DType::BF16, device, |x| activation(x, Activation::GeluTanh)),
        "softmax-f32" => rows(DType::F32, device, |x| softmax(x)),
        _ => Err(xdit_kernels::Error::Device {
            op: "instructions",
            reason: format!("no case is called {name:?}; examples/instructions.rs lists them"),
        }),
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, tier, runs] = arguments.as_slice() else {
        return Err("three arguments: CASE TIER RUNS".into());
    };
    let device = Device::cpu_with(tier.parse::<Tier>()?)?;
    let runs: usize = runs.parse()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let work = pool.install(|| -> Result<usize> {
        let (work, run) = case(name, &device)?;
        for _ in 0..runs {
            black_box(run()?);
        }
        Ok(work)
    })?;
    println!("work {work}");
    Ok(())
}
