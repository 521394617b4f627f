//! Matrix products of a Flux block and of its VAE: linear layers, attention, 3×3 convolutions; two threads.
//!
//! `cargo bench -p xdit-kernels --bench products`. Beside PyTorch: `tests/peer/compare.py --suite linear attention conv`.

#![allow(missing_docs, reason = "a program")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::ThreadPool;
use std::time::Duration;
use xdit_kernels::{
    DType, Device, Result, Tensor,
    attention::{Attention, AttnInput, Flash},
    conv2d::{Conv2d, Conv2dOptions, Padding},
    linear::Linear,
};

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

fn tensor(shape: &[usize], dtype: DType) -> Tensor {
    let n = shape.iter().product::<usize>();
    let data: Vec<f32> = (0..n)
        .map(|i| ((i * 7919) % 2003) as f32 * 0.001 - 1.0)
        .collect();
    let f32s = Tensor::from_slice(&data, shape, &Device::cpu()).expect("the shape fits");
    f32s.to_dtype(dtype).expect("memory suffices")
}

/// Times `run` inside `pool`; `flops` is one run's.
fn bench(
    criterion: &mut Criterion,
    pool: &ThreadPool,
    (group, name): (&str, String),
    flops: usize,
    run: &mut (dyn FnMut() -> Result<Tensor> + Send),
) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(flops as u64));
    let mut once = || pool.install(|| drop(run().expect("shapes fit")));
    group.bench_function(name, |b| b.iter(&mut once));
    group.finish();
}

fn linear(criterion: &mut Criterion, pool: &ThreadPool) {
    for dtype in DTYPES {
        for (m, k, n) in [(256, 256, 1024), (1024, 3072, 3072), (1024, 3072, 12_288)] {
            let weight = tensor(&[n, k], dtype);
            let linear =
                Linear::pack(weight.view(), None, dtype, &Device::cpu()).expect("shapes fit");
            let x = tensor(&[m, k], dtype);
            let name = format!("{dtype}/{m}x{k}x{n}");
            bench(
                criterion,
                pool,
                ("linear", name),
                2 * m * k * n,
                &mut || linear.forward(&x),
            );
        }
    }
}

fn attention(criterion: &mut Criterion, pool: &ThreadPool) {
    for dtype in DTYPES {
        for (tokens, d) in [(1024, 64), (1024, 88), (1024, 128), (4096, 128)] {
            let x = tensor(&[1, tokens, 8, d], dtype);
            let name = format!("{dtype}/8x{tokens}x{d}");
            let flops = 4 * 8 * tokens * tokens * d;
            bench(criterion, pool, ("attention", name), flops, &mut || {
                Ok(Flash.attend(&AttnInput::new(&x, &x, &x))?.out)
            });
        }
    }
}

fn conv2d(criterion: &mut Criterion, pool: &ThreadPool) {
    for (channels, size) in [(512, 64), (256, 128), (16, 256)] {
        let weight = tensor(&[channels, channels, 3, 3], DType::F32);
        let options = Conv2dOptions {
            padding: Padding::all(1),
            ..Default::default()
        };
        let conv = Conv2d::pack(weight.view(), None, options, DType::F32, &Device::cpu());
        let conv = conv.expect("shapes fit");
        let x = tensor(&[1, size, size, channels], DType::F32);
        let name = format!("f32/{channels}x{size}x{size}");
        let flops = 18 * channels * channels * size * size;
        bench(criterion, pool, ("conv2d", name), flops, &mut || {
            conv.forward(&x)
        });
    }
}

fn all(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let pool = pool.expect("two threads start");
    linear(criterion, &pool);
    attention(criterion, &pool);
    conv2d(criterion, &pool);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10);
    targets = all
}
criterion_main!(benches);
