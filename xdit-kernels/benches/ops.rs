//! Row operations of a Flux block: hidden size 3072, 24 heads of 128, 1024 and 4608 tokens, two threads.
//!
//! `cargo bench -p xdit-kernels --bench ops`. Each writes into memory that is there; beside PyTorch, which allocates, they
//! are timed by `tests/peer/compare.py --suite rows`.

#![allow(missing_docs, reason = "a program")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::ThreadPool;
use std::time::Duration;
use xdit_kernels::{
    DType, Device, Result, Tensor, TensorMut,
    activation::{Activation, activation_into},
    elementwise::gate_residual_into,
    norm::{layer_norm_modulate_into, rms_norm_into},
    rope::{rms_norm_rope_into, rope_table},
    softmax::softmax_into,
};

const C: usize = 3072;
const HEADS: usize = 24;
const D: usize = C / HEADS;

fn tensor(shape: &[usize], dtype: DType) -> Tensor {
    let n = shape.iter().product::<usize>();
    let data: Vec<f32> = (0..n)
        .map(|i| ((i * 7919) % 2003) as f32 * 0.003 - 3.0)
        .collect();
    let f32s = Tensor::from_slice(&data, shape, &Device::cpu()).expect("the shape fits");
    f32s.to_dtype(dtype).expect("memory suffices")
}

fn rows(criterion: &mut Criterion, pool: &ThreadPool, l: usize, dtype: DType) {
    let (x, y) = (tensor(&[1, l, C], dtype), tensor(&[1, l, C], dtype));
    let (shift, scale) = (tensor(&[1, C], dtype), tensor(&[1, C], dtype));
    let heads = x.reshape([1, l, HEADS, D]).expect("24 heads of 128");
    let weight = tensor(&[D], dtype);
    let positions: Vec<f32> = (0..l).map(|i| i as f32).collect();
    let (cos, sin) = rope_table(&positions, D, 10_000.0, x.device()).expect("128 is even");
    let mut out = TensorMut::zeros([1, l, C], dtype, x.device()).expect("memory suffices");
    let mut group = criterion.benchmark_group(format!("ops/{dtype}/{l}"));
    group.throughput(Throughput::Bytes((2 * l * C * dtype.size()) as u64));
    let mut bench = |name: &str, run: &mut (dyn FnMut(&mut TensorMut) -> Result<()> + Send)| {
        let mut once = || pool.install(|| run(&mut out).expect("shapes fit"));
        group.bench_function(name, |b| b.iter(&mut once));
    };
    bench("layer_norm_modulate", &mut |out| {
        layer_norm_modulate_into(&x, &shift, &scale, 1e-6, out.view_mut())
    });
    bench("rms_norm", &mut |out| {
        rms_norm_into(&x, None, 1e-6, out.view_mut())
    });
    bench("rms_norm_rope", &mut |out| {
        let rope = Some((cos.view(), sin.view()));
        let out = out.view_mut().split_last(&[HEADS, D])?;
        rms_norm_rope_into(&heads, Some(weight.view()), 1e-6, rope, out)
    });
    for act in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu] {
        bench(&format!("{act:?}"), &mut |out| {
            activation_into(&x, act, out.view_mut())
        });
    }
    bench("gate_residual", &mut |out| {
        gate_residual_into(&x, &shift, &y, out.view_mut())
    });
    bench("softmax", &mut |out| softmax_into(&x, out.view_mut()));
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let pool = pool.expect("two threads start");
    for l in [1024, 4608] {
        for dtype in [DType::F32, DType::BF16] {
            rows(criterion, &pool, l, dtype);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20);
    targets = all
}
criterion_main!(benches);
