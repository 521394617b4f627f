//! Pairs of elements and single ones, gate and residual, activations.

use crate::case::{Case, assert_found, module};
use crate::support::{Args, Draw, FLOATS, Memory, Strided, absent, operand, walk};
use xdit_kernels::{
    DType, Device, Result, Tensor, View,
    activation::{Activation, activation, gated},
    elementwise::{
        add, add_scaled, clamp, divide, gate_residual, mul, scale, scale_shift, sub, weighted_sum,
    },
};

pub(crate) const ELEMENTWISE: &str =
    include_str!("../../xdit-kernels/src/elementwise/elementwise.sm_80.ptx");
const ACTIVATION: &str = include_str!("../../xdit-kernels/src/activation/activation.sm_80.ptx");

/// Whether rows of all these operands are whole vectors of `dtype` at multiples of 16 bytes: so tests choose margins.
fn aligned(dtype: DType, c: usize, margin: usize) -> bool {
    let vector = 16 / dtype.size();
    c.is_multiple_of(vector) && margin.is_multiple_of(2 * vector)
}

/// Blocks of 64 threads for `rows` rows, a thread for each vector or element.
fn grid(dtype: DType, rows: usize, c: usize, aligned: bool) -> [u32; 3] {
    let each = if aligned { 16 / dtype.size() } else { 1 };
    [(rows * c.div_ceil(each)).div_ceil(64) as u32, 1, 1]
}

type Pair = fn(View<'_>, View<'_>) -> Result<Tensor>;

/// The operations in the order of the kernel's enum, with their scalars.
const OPERATIONS: [(Pair, f32, f32); 9] = [
    (|x, y| add(x, y), 0.0, 0.0),
    (|x, y| sub(x, y), 0.0, 0.0),
    (|x, y| mul(x, y), 0.0, 0.0),
    (|x, y| add_scaled(x, y, -0.3), -0.3, 0.0),
    (|x, y| weighted_sum(x, 0.7, y, -1.3), 0.7, -1.3),
    (|x, _| scale(x, 1.7), 1.7, 0.0),
    (|x, _| scale_shift(x, 0.3, 0.1), 0.3, 0.1),
    (|x, _| divide(x, 0.7), 0.7, 0.0),
    (|x, _| clamp(x, -0.5, 0.25), -0.5, 0.25),
];

pub(crate) fn pair(
    operation: usize,
    dtype: DType,
    other: DType,
    (shape, repeated): (&[usize], bool),
    margin: usize,
) -> Case {
    let mut draw = Draw(operation as u64 + shape[1] as u64);
    let x = Strided::random(&mut draw, dtype, shape, margin);
    let y_shape = if repeated { &shape[1..] } else { shape };
    let y = Strided::random(&mut draw, other, y_shape, margin);
    let out = Strided::random(&mut draw, dtype, shape, 2 * margin);
    let (of, a, b) = OPERATIONS[operation];
    let want = of(x.view(), y.view()).unwrap();
    let mut memory = Memory::default();
    let (from, to) = (memory.put(&x), memory.output(&out));
    let y_strides = match repeated {
        true => [vec![0], y.strides()].concat(),
        false => y.strides(),
    };
    let y = match operation {
        ..5 => operand(memory.put(&y), 0, other, dtype),
        _ => absent(),
    };
    let aligned = aligned(dtype, shape[2], margin);
    let args = walk(shape, &[&x.strides(), &y_strides, &out.strides()])
        .u64(from)
        .and(y)
        .u64(to)
        .u32(operation as u32)
        .f32(a)
        .f32(b)
        .u32(u32::from(aligned));
    let rows = shape[0] * shape[1];
    Case::new(format!("combine_{dtype}"), memory, args)
        .named(format!(
            "operation {operation}, {shape:?} margin {margin}, y {other}"
        ))
        .grid(grid(dtype, rows, shape[2], aligned), [64, 1, 1])
        // Equal to the bit.
        .expect(to, &out, want, 0.0)
}

#[test]
fn pairs_and_scalars_are_the_processors() {
    let module = module(ELEMENTWISE);
    for dtype in FLOATS {
        for operation in 0..OPERATIONS.len() {
            pair(operation, dtype, dtype, (&[2, 3, 24], false), 16).check(&module);
            pair(operation, dtype, dtype, (&[2, 3, 7], true), 3).check(&module);
        }
        // The other operand in f32.
        pair(3, dtype, DType::F32, (&[2, 3, 24], true), 16).check(&module);
        pair(3, dtype, DType::F32, (&[2, 3, 7], false), 3).check(&module);
    }
}

#[test]
fn nan_stays_nan_in_a_clamp() {
    let module = module(ELEMENTWISE);
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5, -0.0];
    let x = Strided::of(Tensor::from_slice(&x, [1, 5], &Device::cpu()).unwrap());
    let mut memory = Memory::default();
    let (from, to) = (memory.put(&x), memory.output(&x));
    let args = walk(&[1, 5], &[&x.strides(), &[0, 0], &x.strides()])
        .u64(from)
        .and(absent())
        .u64(to)
        .u32(8)
        .f32(-1.0)
        .f32(1.0)
        .u32(0);
    let want = clamp(x.view(), -1.0, 1.0).unwrap();
    Case::new("combine_f32", memory, args)
        .expect(to, &x, want, 0.0)
        .check(&module);
}

pub(crate) fn gate(
    dtype: DType,
    x_dtype: DType,
    gates: DType,
    shape: &[usize],
    margin: usize,
) -> Case {
    let mut draw = Draw(shape[2] as u64);
    let (b, l, c) = (shape[0], shape[1], shape[2]);
    let x = Strided::random(&mut draw, x_dtype, shape, margin);
    let residual = Strided::random(&mut draw, dtype, shape, 2 * margin);
    let gate = Strided::random(&mut draw, gates, &[b, c], 4 * margin);
    let out = residual.clone();
    let want = gate_residual(x.view(), gate.view(), residual.view()).unwrap();
    let mut memory = Memory::default();
    let strides = [x.strides(), residual.strides(), out.strides()];
    let gate_stride = gate.strides()[0];
    let (x, gate) = (memory.put(&x), memory.put(&gate));
    let (from, to) = (memory.put(&residual), memory.output(&out));
    let aligned = aligned(dtype, c, margin);
    let args = walk(shape, &[&strides[0], &strides[1], &strides[2]])
        .and(operand(x, 0, x_dtype, dtype))
        .and(operand(gate, gate_stride, gates, dtype))
        .u32(l as u32)
        .u64(from)
        .u64(to)
        .u32(u32::from(aligned));
    Case::new(format!("gate_residual_{dtype}"), memory, args)
        .named(format!(
            "{shape:?} margin {margin}, x {x_dtype}, gate {gates}"
        ))
        .grid(grid(dtype, b * l, c, aligned), [64, 1, 1])
        .expect(to, &out, want, 0.0)
}

#[test]
fn gates_and_residuals_are_the_processors() {
    let module = module(ELEMENTWISE);
    for dtype in FLOATS {
        for other in [dtype, DType::F32] {
            gate(dtype, dtype, other, &[2, 3, 24], 16).check(&module);
            gate(dtype, other, dtype, &[2, 2, 7], 3).check(&module);
        }
        gate(dtype, DType::F32, DType::F32, &[1, 5, 8], 16).check(&module);
    }
}

const FUNCTIONS: [Activation; 5] = [
    Activation::GeluTanh,
    Activation::GeluErf,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
];

/// Powers of 2 are good to 2.7e-6 for bf16 on the processor and to 1.5e-7 for others, so few numbers of 16 bits differ.
const POWERS: f32 = 5e-7;

fn act(function: usize, x: &Strided, other: Option<DType>, margin: usize) -> Case {
    let view = x.view();
    let (shape, dtype) = (view.shape(), view.dtype());
    let y = Strided::random(&mut Draw(3), other.unwrap_or(dtype), shape, margin);
    let out = Strided::random(&mut Draw(4), dtype, shape, margin);
    let want = match other {
        None => activation(view, FUNCTIONS[function]),
        Some(_) => gated(view, y.view(), FUNCTIONS[function]),
    };
    let mut memory = Memory::default();
    let (from, to) = (memory.put(x), memory.output(&out));
    let strides = y.strides();
    let y = match other {
        None => absent(),
        Some(other) => operand(memory.put(&y), 0, other, dtype),
    };
    let aligned = aligned(dtype, shape[1], margin);
    let args: Args = walk(shape, &[view.strides(), &strides, &out.strides()])
        .u64(from)
        .and(y)
        .u64(to)
        .u32(function as u32)
        .u32(u32::from(aligned));
    Case::new(format!("activation_{dtype}"), memory, args)
        .named(format!(
            "{:?}, {shape:?} margin {margin}, y {other:?}",
            FUNCTIONS[function]
        ))
        .grid(grid(dtype, shape[0], shape[1], aligned), [64, 1, 1])
        .expect(to, &out, want.unwrap(), POWERS)
}

#[test]
fn activations_are_the_processors() {
    let module = module(ACTIVATION);
    for dtype in FLOATS {
        for function in 0..FUNCTIONS.len() {
            for (shape, margin) in [([3, 24], 16), ([2, 7], 3)] {
                let x = Strided::random(&mut Draw(shape[1] as u64), dtype, &shape, margin);
                act(function, &x, None, margin).check(&module);
                act(function, &x, Some(dtype), margin).check(&module);
            }
        }
    }
}

#[test]
fn activations_of_extreme_numbers_are_the_processors() {
    let module = module(ACTIVATION);
    let inf = f32::INFINITY;
    let x = [
        0.0,
        -0.0,
        1e-30,
        -1e-30,
        4.5,
        -4.5,
        12.0,
        -12.0,
        1e4,
        -1e4,
        3e4,
        -3e4,
        inf,
        -inf,
        f32::NAN,
        0.25,
    ];
    for dtype in FLOATS {
        let x = Tensor::from_slice(&x, [16, 1], &Device::cpu());
        let x = x.unwrap().to_dtype(dtype).unwrap();
        for function in 0..FUNCTIONS.len() {
            // One number each, as the greatest scales the tolerance.
            for row in 0..16 {
                let x = Strided::of(x.narrow(0, row, 1).unwrap());
                act(function, &x, None, 0).check(&module);
            }
        }
    }
}

#[test]
fn seeded_bugs_are_found() {
    let whole = pair(4, DType::BF16, DType::BF16, (&[2, 3, 24], false), 16);
    let odd = pair(3, DType::F16, DType::F16, (&[2, 3, 7], true), 3);
    assert_found(
        ELEMENTWISE,
        &whole,
        "cvt.rn.bf16x2.f32",
        "cvt.rz.bf16x2.f32",
    );
    assert_found(ELEMENTWISE, &whole, "add.s64", "sub.s64");
    assert_found(ELEMENTWISE, &odd, "add.rn.f32", "sub.rn.f32");
    let gated = gate(DType::F32, DType::F32, DType::F32, &[2, 2, 7], 3);
    assert_found(ELEMENTWISE, &gated, "fma.rn.f32", "fma.rz.f32");
}
