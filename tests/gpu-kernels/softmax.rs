//! Softmax over rows.

use crate::case::{Case, assert_found, module};
use crate::support::{Draw, FLOATS, Memory, Strided, walk};
use xdit_kernels::{DType, Device, Tensor, softmax::softmax};

const TEXT: &str = include_str!("../../xdit-kernels/src/softmax/softmax.sm_80.ptx");

/// Sums in f32 are added in another order than the processor's, and the exponentials differ by 2 units in the last place.
const TOLERANCE: f32 = 1e-6;

fn case_of(x: &Strided, margin: usize, warps: u32) -> Case {
    let view = x.view();
    let (shape, dtype) = (view.shape(), view.dtype());
    let out = Strided::random(&mut Draw(1), dtype, shape, margin);
    let (c, rows) = (shape[1], shape[0] as u32);
    let mut memory = Memory::default();
    let (from, to) = (memory.put(x), memory.output(&out));
    let vector = 16 / dtype.size();
    let aligned = c.is_multiple_of(vector) && margin.is_multiple_of(2 * vector);
    let args = walk(shape, &[view.strides(), &out.strides()])
        .u64(from)
        .u64(to)
        .u32(u32::from(aligned));
    let (grid, block) = match warps {
        1 => ([rows.div_ceil(3), 1, 1], [32, 3, 1]),
        warps => ([rows, 1, 1], [32 * warps, 1, 1]),
    };
    Case::new(format!("softmax_{dtype}"), memory, args)
        .named(format!("{shape:?} margin {margin}, {warps} warps"))
        .grid(grid, block)
        .expect(to, &out, softmax(view).unwrap(), TOLERANCE)
}

fn case(dtype: DType, shape: &[usize], margin: usize, warps: u32) -> Case {
    let x = Strided::random(&mut Draw(shape[1] as u64), dtype, shape, margin);
    case_of(&x, margin, warps)
}

#[test]
fn rows_are_the_processors() {
    let module = module(TEXT);
    for dtype in FLOATS {
        case(dtype, &[5, 40], 0, 1).check(&module);
        case(dtype, &[2, 136], 16, 2).check(&module);
        case(dtype, &[4, 77], 6, 1).check(&module);
        case(dtype, &[2, 135], 5, 2).check(&module);
        case(dtype, &[1, 1], 0, 1).check(&module);
    }
}

#[test]
fn infinities_and_nan_are_the_processors() {
    let module = module(TEXT);
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let rows = [
        [-inf, 1.0, 2.0, -200.0],
        [-inf; 4],
        [nan, 1.0, -inf, 2.0],
        [1.0, inf, 3.0, 4.0],
        [1000.0, 1000.0, 913.5, 912.5],
    ];
    for dtype in FLOATS {
        let x = Tensor::from_slice(rows.as_flattened(), [5, 4], &Device::cpu());
        let x = Strided::of(x.unwrap().to_dtype(dtype).unwrap());
        case_of(&x, 0, 1).check(&module);
    }
}

#[test]
fn seeded_bugs_are_found() {
    let wide = case(DType::BF16, &[2, 136], 16, 2);
    let narrow = case(DType::F32, &[5, 40], 0, 1);
    assert_found(TEXT, &wide, "bar.sync", "//");
    assert_found(TEXT, &wide, "max.f32", "min.f32");
    assert_found(TEXT, &narrow, "setp.ge.u32", "setp.gt.u32");
    assert_found(TEXT, &narrow, "shfl.sync.bfly.b32", "shfl.sync.down.b32");
}
