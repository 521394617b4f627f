//! Layer norm and RMS norm.

use crate::case::{Case, assert_found, module};
use crate::support::{Draw, FLOATS, Memory, Strided, absent, operand, walk};
use xdit_kernels::{
    DType,
    norm::{layer_norm, layer_norm_modulate, layer_norm_shift, rms_norm},
};

pub(crate) const NORM: &str = include_str!("../../xdit-kernels/src/norm/norm.sm_80.ptx");

/// Sums in f32 are added in another order than the processor's.
const TOLERANCE: f32 = 1e-6;
const EPS: f32 = 1e-5;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    Plain,
    Affine,
    Modulate,
    Shift,
    Rms,
    RmsWeight,
}

/// x of `shape` with a margin, and parameters of their own dtype.
pub(crate) fn case(
    what: What,
    dtype: DType,
    parameters: DType,
    shape: &[usize],
    margin: usize,
    warps: u32,
) -> Case {
    let mut draw = Draw(shape.iter().product::<usize>() as u64 + u64::from(warps));
    let x = Strided::random(&mut draw, dtype, shape, margin);
    let out = Strided::random(&mut draw, dtype, shape, 2 * margin);
    let (b, l, c) = (shape[0], shape[1], shape[2]);
    let of_all = draw.tensor(parameters, [c]);
    // Chunks of a longer projection.
    let of_each = draw.tensor(parameters, [b, 3 * c]);
    let chunk = |i: usize| of_each.view().narrow(1, i * c, c).unwrap();
    let whole = x.view();
    let want = match what {
        What::Plain => layer_norm(whole, None, None, EPS),
        What::Affine => layer_norm(whole, Some(of_all.view()), Some(of_all.view()), EPS),
        What::Modulate => layer_norm_modulate(whole, chunk(0), chunk(2), EPS),
        What::Shift => layer_norm_shift(whole, &of_all, chunk(1), EPS),
        What::Rms => rms_norm(whole, None, EPS),
        What::RmsWeight => rms_norm(whole, Some(of_all.view()), EPS),
    };
    let mut memory = Memory::default();
    let (from, to) = (memory.put(&x), memory.output(&out));
    let all = memory.put(&Strided::of(of_all.clone()));
    let each = memory.put(&Strided::of(of_each.clone()));
    let size = parameters.size() as u64;
    let of_all = operand(all, 0, parameters, dtype);
    let of_each = |i: usize| operand(each + (i * c) as u64 * size, 3 * c, parameters, dtype);
    let (gain, bias, plus) = match what {
        What::Plain | What::Rms => (absent(), absent(), 0.0),
        What::Affine => (of_all.clone(), of_all, 0.0),
        What::RmsWeight => (of_all, absent(), 0.0),
        What::Modulate => (of_each(2), of_each(0), 1.0),
        What::Shift => (of_all, of_each(1), 0.0),
    };
    let vector = 16 / dtype.size();
    let aligned = c.is_multiple_of(vector) && margin.is_multiple_of(2 * vector);
    let args = walk(shape, &[&x.strides(), &out.strides()])
        .u64(from)
        .u64(to)
        .and(gain)
        .and(bias)
        .u32(if what == What::Affine {
            u32::MAX
        } else {
            l as u32
        })
        .f32(plus)
        .f32(EPS)
        .u32(u32::from(aligned));
    let rows = (b * l) as u32;
    let (grid, block) = match warps {
        1 => ([rows.div_ceil(3), 1, 1], [32, 3, 1]),
        warps => ([rows, 1, 1], [32 * warps, 1, 1]),
    };
    let name = match what {
        What::Rms | What::RmsWeight => "rms_norm",
        _ => "layer_norm",
    };
    Case::new(format!("{name}_{dtype}"), memory, args)
        .named(format!(
            "{shape:?} margin {margin}, parameters {parameters}, {warps} warps"
        ))
        .grid(grid, block)
        .expect(to, &out, want.unwrap(), TOLERANCE)
}

fn all(what: What) {
    let module = module(NORM);
    for dtype in FLOATS {
        for parameters in [DType::F32, dtype] {
            // Whole vectors in registers: one vector a thread, a thread without any, two.
            case(what, dtype, parameters, &[2, 3, 40], 0, 1).check(&module);
            case(what, dtype, parameters, &[2, 1, 136], 16, 2).check(&module);
            // Elements one by one: odd rows, rows at odd places, rows that are longer than a block.
            case(what, dtype, parameters, &[1, 2, 77], 6, 1).check(&module);
            case(what, dtype, parameters, &[2, 2, 135], 5, 2).check(&module);
            case(what, dtype, parameters, &[1, 1, 1], 0, 1).check(&module);
        }
    }
}

#[test]
fn layer_norms() {
    all(What::Plain);
    all(What::Affine);
}

#[test]
fn modulated_layer_norms() {
    all(What::Modulate);
    all(What::Shift);
}

#[test]
fn rms_norms() {
    all(What::Rms);
    all(What::RmsWeight);
}

#[test]
fn a_wide_row_is_in_registers_and_its_deviations_are_from_its_mean() {
    let module = module(NORM);
    case(
        What::Modulate,
        DType::BF16,
        DType::BF16,
        &[1, 2, 3072],
        0,
        6,
    )
    .check(&module);
    case(What::RmsWeight, DType::F32, DType::F32, &[1, 1, 1536], 0, 6).check(&module);
}

#[test]
fn seeded_bugs_are_found() {
    let narrow = case(What::Affine, DType::F32, DType::F32, &[2, 3, 40], 0, 1);
    let wide = case(
        What::Modulate,
        DType::BF16,
        DType::BF16,
        &[2, 1, 136],
        16,
        2,
    );
    let odd = case(What::Modulate, DType::BF16, DType::F32, &[2, 2, 135], 5, 2);
    assert_found(NORM, &wide, "bar.sync", "//");
    assert_found(NORM, &narrow, "shfl.sync.bfly.b32", "shfl.sync.idx.b32");
    assert_found(NORM, &narrow, "setp.ge.u32", "setp.gt.u32");
    assert_found(NORM, &odd, "cvt.rn.bf16.f32", "cvt.rz.bf16.f32");
}
