//! The kernels of `kernels/`, each with inputs and a reference in Rust.

use half::bf16;
use ptx_interp::{FlatMemory, Module, Options, Swizzle, TensorMap};

use crate::attention::{attention, chain};
use crate::support::{Arg, Call, Draw, Verdict, bf16_bytes};

pub(crate) const BASICS: &str = include_str!("../kernels/basics.ptx");
pub(crate) const GEMM: &str = include_str!("../kernels/gemm.ptx");
pub(crate) const ATTENTION: &str = include_str!("../kernels/attention.ptx");
pub(crate) const CHAIN90: &str = include_str!("../kernels/chain90.ptx");
pub(crate) const GEMM90: &str = include_str!("../kernels/gemm90.ptx");

/// A kernel with the text that it comes from.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) run: fn(&Module, &Options) -> Verdict,
}

pub(crate) const CASES: [Case; 11] = [
    Case {
        name: "vector_add",
        text: BASICS,
        run: vector_add,
    },
    Case {
        name: "block_sums",
        text: BASICS,
        run: block_sums,
    },
    Case {
        name: "transpose",
        text: BASICS,
        run: transpose,
    },
    Case {
        name: "softmax_rows",
        text: BASICS,
        run: softmax_rows,
    },
    Case {
        name: "norm_rotary",
        text: BASICS,
        run: norm_rotary,
    },
    Case {
        name: "histogram",
        text: BASICS,
        run: histogram,
    },
    Case {
        name: "to_bytes",
        text: BASICS,
        run: to_bytes,
    },
    Case {
        name: "gemm_bf16",
        text: GEMM,
        run: gemm_bf16,
    },
    Case {
        name: "gemm_wgmma",
        text: GEMM90,
        run: gemm_wgmma,
    },
    Case {
        name: "attention",
        text: ATTENTION,
        run: attention,
    },
    Case {
        name: "chain_wgmma",
        text: CHAIN90,
        run: chain,
    },
];

pub(crate) fn case(name: &str) -> Case {
    *CASES
        .iter()
        .find(|case| case.name == name)
        .expect("a case of this name")
}

fn equal(memory: &mut FlatMemory, address: u64, expected: &[f32]) -> bool {
    // Bytes that the kernel did not write are a wrong result too.
    memory
        .f32s(address, expected.len())
        .is_ok_and(|found| found == expected)
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) -> bool {
    found
        .iter()
        .zip(expected)
        .all(|(a, b)| (a - b).abs() <= tolerance)
}

fn vector_add(module: &Module, options: &Options) -> Verdict {
    let (n, mut draw, mut memory) = (1003, Draw(1), FlatMemory::new());
    let (a, b) = (draw.small(n), draw.small(n));
    let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b * 0.125).collect();
    let (x, y, out) = (
        memory.put_f32(&a),
        memory.put_f32(&b),
        memory.allocate(n * 4),
    );
    let args = vec![
        Arg::Pointer(x),
        Arg::Pointer(y),
        Arg::Pointer(out),
        Arg::Int(n as i32),
    ];
    Call {
        kernel: "vector_add",
        grid: [4, 1, 1],
        block: [64, 1, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    Ok(equal(&mut memory, out, &expected))
}

fn block_sums(module: &Module, options: &Options) -> Verdict {
    let (n, mut memory) = (1000, FlatMemory::new());
    let x = Draw(2).small(n);
    let mut expected = [0.0; 3];
    for (i, x) in x.iter().enumerate() {
        expected[i / 96 % 3] += x;
    }
    let (from, out) = (memory.put_f32(&x), memory.allocate(12));
    let args = vec![Arg::Pointer(from), Arg::Pointer(out), Arg::Int(n as i32)];
    Call {
        kernel: "block_sums",
        grid: [3, 1, 1],
        block: [96, 1, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    Ok(equal(&mut memory, out, &expected))
}

fn transpose(module: &Module, options: &Options) -> Verdict {
    let (h, w, mut memory) = (45, 70, FlatMemory::new());
    let x = Draw(3).small(h * w);
    let expected: Vec<f32> = (0..w * h).map(|i| x[i % h * w + i / h]).collect();
    let (from, out) = (memory.put_f32(&x), memory.allocate(h * w * 4));
    let args = vec![
        Arg::Pointer(from),
        Arg::Pointer(out),
        Arg::Int(h as i32),
        Arg::Int(w as i32),
    ];
    Call {
        kernel: "transpose",
        grid: [3, 2, 1],
        block: [32, 8, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    Ok(equal(&mut memory, out, &expected))
}

fn softmax_rows(module: &Module, options: &Options) -> Verdict {
    let (rows, columns, mut draw, mut memory) = (5, 77, Draw(4), FlatMemory::new());
    let x: Vec<f32> = draw.small(rows * columns).iter().map(|x| x / 4.0).collect();
    let mask: Vec<u8> = (0..columns).map(|_| u8::from(draw.below(4) > 0)).collect();
    let expected: Vec<f32> = x
        .chunks(columns)
        .flat_map(|row| {
            let weights: Vec<f64> = row
                .iter()
                .zip(&mask)
                .map(|(x, m)| f64::from(*m) * f64::from(*x).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(move |w| (w / sum) as f32)
        })
        .collect();
    let (from, by, out) = (
        memory.put(&bf16_bytes(&x)),
        memory.put(&mask),
        memory.allocate(rows * columns * 2),
    );
    let args = vec![
        Arg::Pointer(from),
        Arg::Pointer(by),
        Arg::Pointer(out),
        Arg::Int(rows as i32),
        Arg::Int(columns as i32),
    ];
    Call {
        kernel: "softmax_rows",
        grid: [2, 1, 1],
        block: [32, 4, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    let Ok(bytes) = memory.bytes(out, rows * columns * 2) else {
        return Ok(false);
    };
    let found: Vec<f32> = bytes
        .chunks(2)
        .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
        .collect();
    // Half a unit in the last place of bf16 for numbers up to 1/4.
    Ok(close(&found, &expected, 1.0 / 1024.0))
}

fn norm_rotary(module: &Module, options: &Options) -> Verdict {
    let (rows, d, mut draw, mut memory) = (6, 80, Draw(5), FlatMemory::new());
    let (x, weight) = (draw.small(rows * d), draw.small(d));
    let angles: Vec<f32> = (0..rows * d / 2)
        .flat_map(|_| {
            [
                (draw.below(100) as f32).cos(),
                (draw.below(100) as f32).sin(),
            ]
        })
        .collect();
    let mut expected = vec![0f32; rows * d];
    for (r, row) in x.chunks(d).enumerate() {
        let mean = row.iter().map(|x| f64::from(x * x)).sum::<f64>() / d as f64;
        let scale = 1.0 / (mean + 1e-6).sqrt();
        for i in 0..d / 2 {
            let [p, q] =
                [2 * i, 2 * i + 1].map(|j| f64::from(row[j]) * scale * f64::from(weight[j]));
            let at = r * d + 2 * i;
            let [c, s] = [f64::from(angles[at]), f64::from(angles[at + 1])];
            expected[at] = (p * c - q * s) as f32;
            expected[at + 1] = (p * s + q * c) as f32;
        }
    }
    let [from, by, turn] = [&x, &weight, &angles].map(|values| memory.put_f32(values));
    let out = memory.allocate(rows * d * 4);
    let mut args: Vec<Arg> = [from, by, turn, out].map(Arg::Pointer).to_vec();
    args.extend([Arg::Int(rows as i32), Arg::Int(d as i32), Arg::Float(1e-6)]);
    Call {
        kernel: "norm_rotary",
        grid: [2, 1, 1],
        block: [32, 4, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    // Numbers up to 64, a few roundings of f32.
    Ok(memory
        .f32s(out, rows * d)
        .is_ok_and(|found| close(&found, &expected, 3e-5)))
}

fn histogram(module: &Module, options: &Options) -> Verdict {
    let (n, mut draw, mut memory) = (700, Draw(6), FlatMemory::new());
    let x: Vec<u8> = (0..n).map(|_| draw.below(40) as u8 * 5).collect();
    let mut expected = [0u32; 256];
    x.iter().for_each(|x| expected[*x as usize] += 1);
    let (from, counts, greatest) = (memory.put(&x), memory.put(&[0; 1024]), memory.put(&[0; 4]));
    let args = vec![
        Arg::Pointer(from),
        Arg::Pointer(counts),
        Arg::Pointer(greatest),
        Arg::Int(n),
    ];
    Call {
        kernel: "histogram",
        grid: [3, 1, 1],
        block: [64, 1, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
    let largest = x.iter().max().map(|x| [*x, 0, 0, 0].to_vec());
    Ok(memory.bytes(counts, 1024).ok() == Some(expected)
        && memory.bytes(greatest, 4).ok() == largest)
}

fn to_bytes(module: &Module, options: &Options) -> Verdict {
    let (n, mut memory) = (300, FlatMemory::new());
    let x: Vec<f32> = (0..n).map(|i| i as f32 / 255.0 - 0.1).collect();
    let expected: Vec<u8> = x
        .iter()
        .map(|x| (x.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
        .collect();
    let (from, out) = (memory.put_f32(&x), memory.allocate(n as usize));
    let args = vec![Arg::Pointer(from), Arg::Pointer(out), Arg::Int(n)];
    Call {
        kernel: "to_bytes",
        grid: [3, 1, 1],
        block: [128, 1, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    Ok(memory.bytes(out, n as usize).ok() == Some(expected))
}

/// `a b^T` of small integers.
fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    a.chunks(k)
        .flat_map(|row| b.chunks(k).map(move |column| dot(row, column)))
        .collect()
}

fn gemm_bf16(module: &Module, options: &Options) -> Verdict {
    let (m, n, k, mut draw, mut memory) = (70, 90, 104, Draw(7), FlatMemory::new());
    let (a, b) = (draw.small(m * k), draw.small(n * k));
    let (x, y, out) = (
        memory.put(&bf16_bytes(&a)),
        memory.put(&bf16_bytes(&b)),
        memory.allocate(m * n * 4),
    );
    let mut args: Vec<Arg> = [x, y, out].map(Arg::Pointer).to_vec();
    args.extend([m, n, k].map(|d| Arg::Int(d as i32)));
    Call {
        kernel: "gemm_bf16",
        grid: [2, 2, 1],
        block: [128, 1, 1],
        shared: 0,
        args,
    }
    .run(module, &mut memory, options)?;
    Ok(equal(&mut memory, out, &product(&a, &b, k)))
}

/// A matrix of rows that the copy unit moves in tiles of 64 rows.
fn matrix(address: u64, element: usize, [rows, columns]: [usize; 2], swizzle: Swizzle) -> Arg {
    let map = TensorMap {
        address,
        element,
        dims: vec![columns as u64, rows as u64],
        strides: vec![(columns * element) as u64],
        tile: vec![64, 64],
        swizzle,
    };
    Arg::Bytes(map.encode().expect("the map follows the rules").to_vec())
}

fn gemm_wgmma(module: &Module, options: &Options) -> Verdict {
    let (m, n, k, mut draw, mut memory) = (64, 128, 320, Draw(8), FlatMemory::new());
    let (a, b) = (draw.small(m * k), draw.small(n * k));
    let (x, y, out) = (
        memory.put(&bf16_bytes(&a)),
        memory.put(&bf16_bytes(&b)),
        memory.allocate(m * n * 4),
    );
    let args = vec![
        matrix(x, 2, [m, k], Swizzle::Bytes128),
        matrix(y, 2, [n, k], Swizzle::Bytes128),
        matrix(out, 4, [m, n], Swizzle::None),
        Arg::Int(k as i32),
    ];
    let shared = 3 * 2 * 8192 + 64 * 64 * 4 + 48 + 1024;
    Call {
        kernel: "gemm_wgmma",
        grid: [2, 1, 1],
        block: [256, 1, 1],
        shared,
        args,
    }
    .run(module, &mut memory, options)?;
    Ok(equal(&mut memory, out, &product(&a, &b, k)))
}
