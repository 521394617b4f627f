//! Copies between layouts, casts, transpositions, and rows of a table.

use crate::case::{Case, assert_found, module};
use crate::support::{Args, Draw, FLOATS, Memory, Strided, walk};
use xdit_kernels::{DType, Device, Tensor, embedding::embedding, layout::cast};

pub(crate) const LAYOUT: &str = include_str!("../../xdit-kernels/src/layout/layout.sm_80.ptx");
const EMBEDDING: &str = include_str!("../../xdit-kernels/src/embedding/embedding.sm_80.ptx");

/// Whether all are multiples of what a word of so many elements needs.
fn words(word: usize, sizes: &[usize]) -> bool {
    sizes.iter().all(|n| n.is_multiple_of(word))
}

/// A copy of x to a tensor that lies like `out`, whose last dim is the row on both sides, by words of `word` elements.
pub(crate) fn copy(x: &Strided, out: &Strided, word: usize) -> Case {
    let (view, dtype) = (x.view(), x.whole.dtype());
    let ndim = view.ndim();
    let mut memory = Memory::default();
    let (from, to) = (memory.put(x), memory.output(out));
    let mut shape = view.shape().to_vec();
    let in_words = |strides: Vec<usize>| -> Vec<usize> {
        assert!(word == 1 || words(word, &strides[..ndim - 1]) && strides[ndim - 1] == 1);
        strides.iter().map(|s| s.div_ceil(word)).collect()
    };
    let (x_strides, out_strides) = (in_words(x.strides()), in_words(out.strides()));
    shape[ndim - 1] /= word;
    let args = walk(&shape, &[&x_strides, &out_strides])
        .u64(from)
        .u64(to)
        .u64(x_strides[ndim - 1] as u64)
        .u64(out_strides[ndim - 1] as u64);
    let threads: usize = shape.iter().product();
    Case::new(format!("copy_{}", word * dtype.size()), memory, args)
        .named(format!("{shape:?} of {dtype}"))
        .grid([threads.div_ceil(64) as u32, 1, 1], [64, 1, 1])
        .expect(to, out, view.to_tensor().unwrap(), 0.0)
}

fn of_u8(draw: &mut Draw, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let values: Vec<u8> = (0..count).map(|_| draw.below(256) as u8).collect();
    Tensor::from_slice(&values, shape, &Device::cpu()).unwrap()
}

fn of_u32(draw: &mut Draw, shape: &[usize], below: u64) -> Tensor {
    let count = shape.iter().product();
    let values: Vec<u32> = (0..count).map(|_| draw.below(below) as u32).collect();
    Tensor::from_slice(&values, shape, &Device::cpu()).unwrap()
}

#[test]
fn copies_of_any_layout_are_exact() {
    let module = module(LAYOUT);
    let mut draw = Draw(5);
    for dtype in [DType::F32, DType::BF16] {
        let element = dtype.size();
        for (bytes, margin) in [(16, 16), (8, 8), (4, 4), (element, 3)] {
            let word = bytes / element;
            if word == 0 {
                continue;
            }
            let shape = [2, 3, 8 * word / if margin == 3 { 2 } else { 1 }];
            let x = Strided::random(&mut draw, dtype, &shape, margin);
            let out = Strided::random(&mut draw, dtype, &shape, 2 * margin);
            copy(&x, &out, if margin == 3 { 1 } else { word }).check(&module);
        }
        // Neither side has an adjacent last dim: heads and tokens of five dims change places.
        let x = Strided::of(draw.tensor(dtype, [2, 3, 2, 2, 5])).permuted(&[2, 0, 4, 3, 1]);
        let out = Strided::of(draw.tensor(dtype, [3, 2, 5, 2, 2])).permuted(&[4, 1, 2, 3, 0]);
        copy(&x, &out, 1).check(&module);
    }
    let masks = Strided::of(of_u8(&mut draw, &[3, 9])).narrowed(1, 2, 5);
    copy(&masks, &Strided::of(of_u8(&mut draw, &[3, 5])), 1).check(&module);
    let ids = Strided::of(of_u32(&mut draw, &[3, 9], 1 << 32)).narrowed(0, 1, 2);
    copy(&ids, &Strided::of(of_u32(&mut draw, &[2, 9], 2)), 1).check(&module);
}

pub(crate) fn casting(x: &Strided, to_dtype: DType, margin: usize) -> Case {
    let (view, from_dtype) = (x.view(), x.whole.dtype());
    let shape = view.shape().to_vec();
    let want = cast(view, to_dtype).unwrap();
    let whole = match to_dtype {
        DType::U8 => of_u8(&mut Draw(1), &[shape[0], shape[1] + margin]),
        float => Draw(1).tensor(float, [shape[0], shape[1] + margin]),
    };
    let out = Strided::of(whole).narrowed(1, margin / 2, shape[1]);
    let mut memory = Memory::default();
    let (from, to) = (memory.put(x), memory.output(&out));
    let float = from_dtype.is_float() && to_dtype.is_float();
    let steps = x.strides()[1];
    let aligned = float && words(8, &[shape[1]]) && words(16, &[margin]) && steps == 1;
    let args = walk(&shape, &[&x.strides(), &out.strides()])
        .u64(from)
        .u64(to)
        .u64(steps as u64)
        .u64(1)
        .u32(u32::from(aligned));
    let each = if aligned { 8 } else { 1 };
    let threads = shape[0] * shape[1].div_ceil(each);
    Case::new(format!("cast_{from_dtype}_{to_dtype}"), memory, args)
        .named(format!("{shape:?} margin {margin} step {steps}"))
        .grid([threads.div_ceil(64) as u32, 1, 1], [64, 1, 1])
        .expect(to, &out, want, 0.0)
}

#[test]
fn casts_round_as_the_processor() {
    let module = module(LAYOUT);
    let mut draw = Draw(7);
    for from in FLOATS {
        for to in FLOATS.into_iter().filter(|to| *to != from) {
            let x = Strided::random(&mut draw, from, &[3, 24], 16);
            casting(&x, to, 16).check(&module);
            let x = Strided::of(draw.tensor(from, [7, 3])).permuted(&[1, 0]);
            casting(&x, to, 3).check(&module);
        }
        let extreme = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            65504.0,
            65519.0,
            65520.0,
            1e-8,
            -3.0,
            0.99,
            254.99,
            255.5,
            300.0,
            6e-8,
            1e-40,
            3.389e38,
            7.5,
        ];
        let x = Tensor::from_slice(&extreme, [1, 16], &Device::cpu()).unwrap();
        let x = Strided::of(x.to_dtype(from).unwrap());
        for to in FLOATS
            .into_iter()
            .chain([DType::U8])
            .filter(|to| *to != from)
        {
            casting(&x, to, 0).check(&module);
        }
        let bytes = Strided::of(of_u8(&mut draw, &[2, 130]));
        casting(&bytes, from, 1).check(&module);
    }
}

/// [b, i, j] of x with i adjacent, to [b, i, j] of `out` with j adjacent.
fn transposition(dtype: DType, [b, i, j]: [usize; 3], margin: usize) -> Case {
    let mut draw = Draw((i + j) as u64);
    let make = |draw: &mut Draw, shape: &[usize]| match dtype {
        DType::U8 => of_u8(draw, shape),
        float => draw.tensor(float, shape),
    };
    let x = make(&mut draw, &[b, j, i + margin]);
    let x = Strided::of(x)
        .narrowed(2, 1.min(margin), i)
        .permuted(&[0, 2, 1]);
    let out = Strided::of(make(&mut draw, &[b, i, j + margin])).narrowed(2, margin, j);
    let mut memory = Memory::default();
    let (from, to) = (memory.put(&x), memory.output(&out));
    // The walk is over the other dims.
    let (x_strides, out_strides) = (x.strides(), out.strides());
    let args = walk(&[b, 1], &[&x_strides[..1], &out_strides[..1]])
        .u64(from)
        .u64(to)
        .u32(i as u32)
        .u32(j as u32)
        .u64(x_strides[2] as u64)
        .u64(out_strides[1] as u64);
    let tiles = b * i.div_ceil(32) * j.div_ceil(32);
    let want = x.view().to_tensor().unwrap();
    Case::new(format!("transpose_{}", dtype.size()), memory, args)
        .named(format!("{b} of {i} by {j}, margin {margin}"))
        .grid([tiles as u32, 1, 1], [32, 8, 1])
        .expect(to, &out, want, 0.0)
}

#[test]
fn transpositions_are_exact() {
    let module = module(LAYOUT);
    for dtype in [DType::F32, DType::F16, DType::U8] {
        transposition(dtype, [2, 33, 40], 0).check(&module);
        transposition(dtype, [1, 3, 65], 2).check(&module);
        transposition(dtype, [3, 32, 1], 1).check(&module);
    }
}

/// A gather of whole rows, or of parts of rows of a longer table, by words of `word` elements.
fn gather(table: &Strided, ids: &[u32], word: usize) -> (Case, Strided, u64) {
    let dtype = table.whole.dtype();
    let (n, c) = (table.view().dim(0), table.view().dim(1));
    let shape = [ids.len(), c];
    let out = Strided::of(Tensor::zeros(shape, dtype, &Device::cpu()).unwrap());
    // Every second of these is an id.
    let spread: Vec<u8> = ids
        .iter()
        .flat_map(|id| [*id, 1 << 30])
        .flat_map(u32::to_le_bytes)
        .collect();
    let mut memory = Memory::default();
    let (from, to) = (memory.put(table), memory.output(&out));
    let ids_at = memory.put_bytes(&spread);
    let args = Args::default()
        .u64(from)
        .u64((table.strides()[0] / word) as u64)
        .u32(n as u32)
        .u64(ids_at)
        .u64(2)
        .u64(to)
        .u64((c / word) as u64)
        .u32(ids.len() as u32)
        .u32((c / word) as u32);
    let threads = ids.len() * c / word;
    let case = Case::new(format!("gather_{}", word * dtype.size()), memory, args)
        .named(format!("{n} rows of {c} {dtype}"))
        .grid([threads.div_ceil(64) as u32, 1, 1], [64, 1, 1]);
    (case, out, to)
}

#[test]
fn rows_of_a_table_are_exact() {
    let module = module(EMBEDDING);
    let mut draw = Draw(9);
    let ids = [4u32, 0, 2, 2, 1];
    let of_ids = Tensor::from_slice(&ids, [5], &Device::cpu()).unwrap();
    for (dtype, c, margin, word) in [
        (DType::BF16, 24, 16, 8),
        (DType::BF16, 6, 4, 2),
        (DType::F16, 7, 3, 1),
        (DType::F32, 5, 1, 1),
        (DType::F32, 12, 8, 4),
    ] {
        let table = Strided::random(&mut draw, dtype, &[5, c], margin);
        let want = embedding(table.view(), &of_ids).unwrap();
        let (case, out, to) = gather(&table, &ids, word);
        case.expect(to, &out, want, 0.0).check(&module);
    }
    let table = Strided::of(of_u8(&mut draw, &[5, 3]));
    let want = embedding(table.view(), &of_ids).unwrap();
    let (case, out, to) = gather(&table, &ids, 1);
    case.expect(to, &out, want, 0.0).check(&module);
}

#[test]
fn an_id_that_the_table_lacks_gives_nan() {
    let module = module(EMBEDDING);
    for dtype in FLOATS {
        let table = Strided::of(Draw(2).tensor(dtype, [3, 8]));
        let (case, out, to) = gather(&table, &[1, 3, u32::MAX, 2], 16 / dtype.size());
        let row = |i: usize| table.whole.narrow(0, i, 1).unwrap();
        let nan = Tensor::from_slice(&[f32::NAN; 8], [1, 8], &Device::cpu());
        let nan = nan.unwrap().to_dtype(dtype).unwrap();
        let rows = [row(1), nan.clone(), nan, row(2)];
        let want = Tensor::cat(&rows.each_ref().map(Tensor::view), 0).unwrap();
        case.expect(to, &out, want, 0.0).check(&module);
    }
}

#[test]
fn seeded_bugs_are_found() {
    let x = Strided::random(&mut Draw(1), DType::BF16, &[2, 3, 8], 3);
    let out = Strided::random(&mut Draw(2), DType::BF16, &[2, 3, 8], 0);
    let odd = copy(&x, &out, 1);
    assert_found(LAYOUT, &odd, "div.u32", "rem.u32");
    let turned = transposition(DType::F32, [2, 33, 40], 2);
    assert_found(LAYOUT, &turned, "bar.sync", "//");
    assert_found(LAYOUT, &turned, "setp.ge.u32", "setp.gt.u32");
    let rounded = casting(
        &Strided::of(Draw(3).tensor(DType::F32, [1, 24])),
        DType::F16,
        0,
    );
    assert_found(LAYOUT, &rounded, "cvt.rn.f16x2.f32", "cvt.rz.f16x2.f32");
    let table = Strided::of(Draw(2).tensor(DType::F32, [3, 8]));
    let (picked, out, to) = gather(&table, &[1, 3], 4);
    let nan = Tensor::from_slice(&[f32::NAN; 8], [1, 8], &Device::cpu()).unwrap();
    let rows = [table.whole.narrow(0, 1, 1).unwrap(), nan];
    let want = Tensor::cat(&rows.each_ref().map(Tensor::view), 0).unwrap();
    let picked = picked.expect(to, &out, want, 0.0);
    assert_found(EMBEDDING, &picked, "setp.ge.u32", "setp.gt.u32");
}
