//! References of the kernels with two products.

use ptx_interp::{FlatMemory, Module, Options, Swizzle, TensorMap};

use crate::support::{Arg, Call, Draw, Verdict, bf16_bytes};

const DIM: usize = 64;

/// The score of each query and key.
fn scores(q: &[f32], k: &[f32]) -> Vec<Vec<f64>> {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum();
    q.chunks(DIM)
        .map(|q| k.chunks(DIM).map(|k| dot(q, k)).collect())
        .collect()
}

/// The sum of the rows of `v`, each with its weight.
fn weighted(weights: &[f64], v: &[f32]) -> Vec<f64> {
    let column = |c: usize| {
        weights
            .iter()
            .zip(v.chunks(DIM))
            .map(|(w, v)| w * f64::from(v[c]))
            .sum()
    };
    (0..DIM).map(column).collect()
}

pub(crate) fn attention(module: &Module, options: &Options) -> Verdict {
    let (queries, keys, scale, mut draw, mut memory) =
        (70, 75, 0.02f32, Draw(11), FlatMemory::new());
    let (q, k, v) = (
        draw.small(queries * DIM),
        draw.small(keys * DIM),
        draw.small(keys * DIM),
    );
    let [a, b, c] = [&q, &k, &v].map(|values| memory.put(&bf16_bytes(values)));
    let (out, lse) = (
        memory.allocate(queries * DIM * 4),
        memory.allocate(queries * 4),
    );
    let mut args: Vec<Arg> = [a, b, c, out, lse].map(Arg::Pointer).to_vec();
    args.extend([
        Arg::Int(queries as i32),
        Arg::Int(keys as i32),
        Arg::Float(scale),
    ]);
    let call = Call {
        kernel: "attention",
        grid: [2, 1, 1],
        block: [128, 1, 1],
        shared: 0,
        args,
    };
    call.run(module, &mut memory, options)?;
    let (Ok(out), Ok(lse)) = (memory.f32s(out, queries * DIM), memory.f32s(lse, queries)) else {
        return Ok(false);
    };
    let mut right = true;
    for (row, scores) in scores(&q, &k).iter().enumerate() {
        let weights: Vec<f64> = scores
            .iter()
            .map(|s| (s * f64::from(scale)).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        right &= (f64::from(lse[row]) - sum.ln()).abs() <= 1e-4;
        for (found, expected) in out[row * DIM..].iter().zip(weighted(&weights, &v)) {
            // Weights are rounded to bf16: a relative error of 2^-9 each, of values up to 8.
            right &= (f64::from(*found) - expected / sum).abs() <= 8.0 / 512.0;
        }
    }
    Ok(right)
}

pub(crate) fn chain(module: &Module, options: &Options) -> Verdict {
    let (mut draw, mut memory) = (Draw(12), FlatMemory::new());
    // Scores of at most 64 are exact in bf16.
    let mut ones = || {
        (0..64 * DIM)
            .map(|_| draw.below(3) as f32 - 1.0)
            .collect::<Vec<f32>>()
    };
    let (q, k, v) = (ones(), ones(), ones());
    let mut args: Vec<Arg> = [&q, &k, &v]
        .map(|values| {
            let map = TensorMap {
                address: memory.put(&bf16_bytes(values)),
                element: 2,
                dims: vec![64, 64],
                strides: vec![128],
                tile: vec![64, 64],
                swizzle: Swizzle::Bytes128,
            };
            Arg::Bytes(map.encode().expect("the map follows the rules").to_vec())
        })
        .to_vec();
    let out = memory.allocate(64 * DIM * 4);
    args.push(Arg::Pointer(out));
    let call = Call {
        kernel: "chain_wgmma",
        grid: [1; 3],
        block: [128, 1, 1],
        shared: 3 * 8192 + 8 + 2048,
        args,
    };
    call.run(module, &mut memory, options)?;
    let expected: Vec<f32> = scores(&q, &k)
        .iter()
        .flat_map(|row| weighted(row, &v))
        .map(|x| x as f32)
        .collect();
    Ok(memory
        .f32s(out, 64 * DIM)
        .is_ok_and(|found| found == expected))
}
