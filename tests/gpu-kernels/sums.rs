//! Sums in f64, and what is not finite.

use crate::case::{Case, assert_found, module};
use crate::support::{Args, Draw, FLOATS, Memory, Strided, operand, walk};
use xdit_kernels::{DType, Device, Tensor, sums::RunningSums};

const SUMS: &str = include_str!("../../xdit-kernels/src/sums/sums.sm_80.ptx");
const FINITE: &str = include_str!("../../xdit-kernels/src/finite/finite.sm_80.ptx");

fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The order of additions in f64 differs.
const ORDER: f64 = 1e-12;

/// Σ(fresh − stale)² and Σfresh² over the rows, as partial sums of chunks; and what they add up to.
fn distance(dtype: DType, stale_dtype: DType, shape: &[usize], margin: usize) -> (Case, Vec<f64>) {
    let mut draw = Draw(shape[2] as u64);
    let fresh = Strided::random(&mut draw, dtype, shape, margin);
    let stale = Strided::random(&mut draw, stale_dtype, shape, 2 * margin);
    let mut sums = RunningSums::zeros(2, &Device::cpu()).unwrap();
    // Every second row of dim 1 from the first on.
    sums.add_distance(0, fresh.view(), stale.view(), 1, 2)
        .unwrap();
    let mut memory = Memory::default();
    let rows = (shape[1] - 1).div_ceil(2);
    let every = |x: &Strided| {
        let s = x.strides();
        (vec![s[0], 2 * s[1], s[2]], s[1])
    };
    let ((fresh_strides, first), (stale_strides, stale_first)) = (every(&fresh), every(&stale));
    let from = memory.put(&fresh) + (first * dtype.size()) as u64;
    let stale = memory.put(&stale) + (stale_first * stale_dtype.size()) as u64;
    let chunks = shape[0] * rows * shape[2] / 8192 + 1;
    let to = memory.f64_output(2 * chunks);
    let vector = 16 / dtype.size();
    let aligned = shape[2].is_multiple_of(vector) && margin.is_multiple_of(2 * vector);
    let selected = [shape[0], rows, shape[2]];
    let args = walk(&selected, &[&fresh_strides, &stale_strides])
        .u64(from)
        .and(operand(stale, 0, stale_dtype, dtype))
        .u64(to)
        .u32(u32::from(aligned));
    let case = Case::new(format!("distance_{dtype}"), memory, args)
        .named(format!("{shape:?} margin {margin}, stale {stale_dtype}"))
        .grid([chunks as u32, 1, 1], [256, 1, 1]);
    let want = sums.to_vec_blocking(0..2).unwrap();
    (case.expect_sums(to, chunks, &want, ORDER), want)
}

#[test]
fn distances_are_the_processors() {
    let module = module(SUMS);
    for dtype in FLOATS {
        distance(dtype, dtype, &[2, 4, 24], 16).0.check(&module);
        distance(dtype, DType::F32, &[1, 5, 7], 3).0.check(&module);
        distance(dtype, dtype, &[2, 5, 2056], 0).0.check(&module);
    }
}

fn moments(dtype: DType, shape: &[usize], margin: usize) -> Case {
    let x = Strided::random(&mut Draw(shape[2] as u64), dtype, shape, margin);
    let numbers = 2 * shape[0];
    let mut sums = RunningSums::zeros(numbers, &Device::cpu()).unwrap();
    sums.add_moments(0, x.view()).unwrap();
    let mut memory = Memory::default();
    let from = memory.put(&x);
    let chunks = shape[1] * shape[2] / 8192 + 1;
    let to = memory.f64_output(numbers * chunks);
    let vector = 16 / dtype.size();
    let aligned = shape[2].is_multiple_of(vector) && margin.is_multiple_of(2 * vector);
    let strides = x.strides();
    let args = walk(&shape[1..], &[&strides[1..]])
        .u64(from)
        .u64(strides[0] as u64)
        .u64(to)
        .u32(u32::from(aligned));
    let want = sums.to_vec_blocking(0..numbers).unwrap();
    Case::new(format!("moments_{dtype}"), memory, args)
        .named(format!("{shape:?} margin {margin}"))
        .grid([chunks as u32, shape[0] as u32, 1], [256, 1, 1])
        .expect_sums(to, chunks, &want, ORDER)
}

#[test]
fn moments_are_the_processors() {
    let module = module(SUMS);
    for dtype in FLOATS {
        moments(dtype, &[3, 2, 24], 16).check(&module);
        moments(dtype, &[2, 3, 7], 3).check(&module);
        moments(dtype, &[2, 5, 2056], 0).check(&module);
    }
}

#[test]
fn partial_sums_are_added_to_numbers() {
    let module = module(SUMS);
    let partials: Vec<f64> = (0..3 * 70).map(|i| f64::from(i) * 0.25).collect();
    let before = [10.0, 20.0, 30.0];
    let mut memory = Memory::default();
    let from = memory.put_bytes(&f64s(&partials));
    let to = memory.put_bytes(&f64s(&before));
    let want: Vec<f64> = (0..3)
        .map(|n| before[n] + partials[70 * n..70 * (n + 1)].iter().sum::<f64>())
        .collect();
    let args = Args::default().u64(from).u32(70).u64(to);
    Case::new("add_partials", memory.clone(), args)
        .grid([3, 1, 1], [32, 1, 1])
        .expect_sums(to, 1, &want, 0.0)
        .check(&module);
    let args = Args::default().u64(to).u64(from).u32(3);
    let want: Vec<f64> = (0..3).map(|n| before[n] + partials[n]).collect();
    Case::new("add_numbers", memory, args)
        .grid([1; 3], [256, 1, 1])
        .expect_sums(to, 1, &want, 0.0)
        .check(&module);
}

/// Entries of `n` numbers with some of them NaN or infinite, `skip` behind a multiple of 16 bytes.
fn broken(dtype: DType, n: usize, bad: &[usize], skip: usize) -> Strided {
    let mut values: Vec<f32> = (0..2 * n + skip).map(|i| i as f32).collect();
    for (k, at) in bad.iter().enumerate() {
        values[skip + at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][k % 3];
    }
    let len = values.len();
    let x = Tensor::from_slice(&values, [len], &Device::cpu());
    Strided::of(x.unwrap().to_dtype(dtype).unwrap()).narrowed(0, skip, 2 * n)
}

fn count(dtype: DType, n: usize, bad: &[usize], skip: usize) -> Case {
    let mut memory = Memory::default();
    let x = memory.put(&broken(dtype, n, bad, skip));
    let to = memory.put_bytes(&f64s(&[5.0, 7.0]));
    let of = |entry: usize| bad.iter().filter(|at| *at / n == entry).count() as f64;
    let args = Args::default().u64(x).u64(n as u64).u64(n as u64).u64(to);
    Case::new(format!("count_not_finite_{dtype}"), memory, args)
        .named(format!("{n}, {bad:?} skip {skip}"))
        .grid([2, 2, 1], [64, 1, 1])
        .expect_sums(to, 1, &[5.0 + of(0), 7.0 + of(1)], 0.0)
}

fn first(dtype: DType, n: usize, bad: &[usize], skip: usize) -> Case {
    let mut memory = Memory::default();
    let x = memory.put(&broken(dtype, n, bad, skip));
    let to = memory.put_bytes(&u64::MAX.to_le_bytes());
    let want = bad.iter().min().map_or(u64::MAX, |at| *at as u64);
    let args = Args::default().u64(x).u64(2 * n as u64).u64(to);
    Case::new(format!("first_not_finite_{dtype}"), memory, args)
        .named(format!("{n}, {bad:?} skip {skip}"))
        .grid([3, 1, 1], [64, 1, 1])
        .expect_bytes(to, &want.to_le_bytes())
}

#[test]
fn what_is_not_finite_is_found() {
    let module = module(FINITE);
    for dtype in FLOATS {
        for (n, bad, skip) in [
            (1001, &[3usize, 77, 1000, 1001, 2001][..], 0),
            (1001, &[1999, 2000], 1),
            (64, &[], 0),
            (5, &[9], 3),
        ] {
            count(dtype, n, bad, skip).check(&module);
            first(dtype, n, bad, skip).check(&module);
        }
    }
}

#[test]
fn seeded_bugs_are_found() {
    let (case, _) = distance(DType::BF16, DType::F32, &[2, 5, 2056], 0);
    assert_found(SUMS, &case, "bar.sync", "//");
    assert_found(SUMS, &case, "shfl.sync.bfly.b32", "shfl.sync.up.b32");
    let case = moments(DType::F32, &[2, 3, 7], 3);
    assert_found(SUMS, &case, "add.f64", "sub.f64");
    let case = count(DType::F16, 1001, &[3, 77, 2001], 0);
    assert_found(FINITE, &case, "31744", "32767");
    let case = first(DType::BF16, 1001, &[3, 77, 2001], 0);
    assert_found(FINITE, &case, "min.u64", "max.u64");
}
