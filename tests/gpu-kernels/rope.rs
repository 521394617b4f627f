//! The norm of heads and their rotation.

use crate::case::{Case, assert_found, module};
use crate::support::{Args, Draw, FLOATS, Memory, Strided, absent, kind, operand, walk};
use xdit_kernels::{
    DType, Device, Tensor, TensorMut, View,
    rope::{HeadNorm, QkNormRope, layer_norm_rope, qk_norm_rope_into, rms_norm_rope, rope_table},
};

const TEXT: &str = include_str!("../../xdit-kernels/src/rope/rope.sm_80.ptx");

/// Sums in f32 are added in another order than the processor's.
const TOLERANCE: f32 = 1e-6;
const EPS: f32 = 1e-6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Norm {
    Copy = 0,
    None = 1,
    Rms = 2,
    Layer = 3,
}

/// One stream of a launch.
#[derive(Clone, Copy)]
struct Stream {
    x: u64,
    out: u64,
    /// Address and kind: 0 where there is none.
    gain: (u64, u32),
    bias: (u64, u32),
    norm: Norm,
}

const UNUSED: Stream = Stream {
    x: 0,
    out: 0,
    gain: (0, 0),
    bias: (0, 0),
    norm: Norm::None,
};

/// The parameters behind the walk.
fn parameters([q, k, v]: [Stream; 3], tables: Args, h: usize, l: usize) -> Args {
    let mut args = Args::default();
    for address in [q.x, k.x, v.x, q.out, k.out, v.out] {
        args = args.u64(address);
    }
    for (address, _) in [q.gain, q.bias, k.gain, k.bias] {
        args = args.u64(address);
    }
    let mut norms = Args::default();
    for number in [
        q.norm as u32,
        k.norm as u32,
        v.norm as u32,
        q.gain.1,
        k.gain.1,
        q.bias.1,
        k.bias.1,
        h as u32,
        l as u32,
        0,
    ] {
        norms = norms.u32(number);
    }
    args.and(tables).of(norms)
}

fn tables(memory: &mut Memory, rope: Option<&(Tensor, Tensor)>) -> Args {
    let table = |memory: &mut Memory, x: &Tensor| {
        let at = memory.put(&Strided::of(x.clone()));
        operand(at, x.shape()[1], DType::F32, DType::F32)
    };
    let (cos, sin) = match rope {
        None => (absent(), absent()),
        Some((cos, sin)) => (table(memory, cos), table(memory, sin)),
    };
    cos.and(sin)
}

/// The lanes of a row, as the host chooses them, and whether rows are whole vectors at multiples of 16 bytes.
fn lanes(dtype: DType, d: usize, margin: usize) -> (u32, bool) {
    let vector = 16 / dtype.size();
    let aligned = d.is_multiple_of(vector) && margin.is_multiple_of(2 * vector);
    let each = if aligned { vector } else { 2 };
    let lanes = d.div_ceil(each).next_power_of_two().min(32);
    (lanes as u32, aligned)
}

/// Some rows of a longer output [b, l + 3, h, d], as text before image rows of a joint attention.
fn part_of_joint(draw: &mut Draw, dtype: DType, shape: &[usize]) -> (Strided, Tensor) {
    let mut joint = shape.to_vec();
    joint[1] += 3;
    let whole = draw.tensor(dtype, joint.as_slice());
    let part = Strided::of(whole.clone()).narrowed(1, 2, shape[1]);
    (part, whole)
}

fn fused(
    norms: [Norm; 2],
    dtype: DType,
    parameters_dtype: DType,
    rotates: bool,
    shape: [usize; 4],
) -> Case {
    let [b, l, h, d] = shape;
    let mut draw = Draw(d as u64 + h as u64);
    let qkv = Strided::of(draw.tensor(dtype, [b, l, 3, h, d]));
    let weights: Vec<Tensor> = (0..4).map(|_| draw.tensor(parameters_dtype, [d])).collect();
    let positions: Vec<f64> = (0..l).map(|i| i as f64 + 0.5).collect();
    let rope = rotates.then(|| rope_table(&positions, d, 10_000.0, &Device::cpu()).unwrap());
    let norm = |i: usize| match norms[i] {
        Norm::Rms => Some(HeadNorm::Rms(weights[2 * i].view())),
        Norm::Layer => Some(HeadNorm::Layer {
            weight: weights[2 * i].view(),
            bias: weights[2 * i + 1].view(),
        }),
        _ => None,
    };
    let options = QkNormRope {
        norm_q: norm(0),
        norm_k: norm(1),
        eps: EPS,
        rope: rope.as_ref().map(|(cos, sin)| (cos.view(), sin.view())),
    };
    let new = || TensorMut::zeros(shape, dtype, &Device::cpu()).unwrap();
    let mut wanted = [new(), new(), new()];
    let [q, k, v] = &mut wanted;
    qk_norm_rope_into(
        qkv.view(),
        &options,
        q.view_mut(),
        k.view_mut(),
        v.view_mut(),
    )
    .unwrap();
    let mut memory = Memory::default();
    let from = memory.put(&qkv);
    let parts: Vec<(Strided, Tensor)> = (0..3)
        .map(|_| part_of_joint(&mut draw, dtype, &shape))
        .collect();
    let to: Vec<u64> = parts.iter().map(|(part, _)| memory.output(part)).collect();
    let mut streams = [UNUSED; 3];
    for (i, stream) in streams.iter_mut().enumerate() {
        let mut parameter = |at: usize| {
            let at = memory.put(&Strided::of(weights[at].clone()));
            (at, kind(parameters_dtype, dtype))
        };
        stream.x = from + (i * h * d * dtype.size()) as u64;
        stream.out = to[i];
        stream.norm = norms.get(i).copied().unwrap_or(Norm::Copy);
        if matches!(stream.norm, Norm::Rms | Norm::Layer) {
            stream.gain = parameter(2 * i);
        }
        if stream.norm == Norm::Layer {
            stream.bias = parameter(2 * i + 1);
        }
    }
    let x_strides = [l * 3 * h * d, 3 * h * d, d, 1];
    let out_strides = parts[0].0.strides();
    let tables = tables(&mut memory, rope.as_ref());
    let (lanes, aligned) = lanes(dtype, d, 0);
    let out = &out_strides;
    let args = walk(&shape, &[&x_strides, &x_strides, &x_strides, out, out, out])
        .and(parameters(streams, tables, h, l))
        .f32(EPS)
        .u32(lanes)
        .u32(u32::from(aligned));
    let rows = (b * l * h) as u32;
    let mut case = Case::new(format!("norm_rope_{dtype}"), memory, args)
        .named(format!(
            "{norms:?}, {shape:?}, parameters {parameters_dtype}, {rotates}"
        ))
        .grid([rows.div_ceil(64 / lanes), 3, 1], [64, 1, 1]);
    for ((wanted, (part, _)), at) in wanted.into_iter().zip(&parts).zip(to) {
        case = case.expect(at, part, wanted.freeze(), TOLERANCE);
    }
    case
}

#[test]
fn queries_keys_and_values_are_the_processors() {
    let module = module(TEXT);
    for dtype in FLOATS {
        for parameters in [DType::F32, dtype] {
            // Whole vectors, a row in a few lanes; several vectors a lane; odd sizes.
            for d in [40, 64, 6] {
                fused(
                    [Norm::Rms, Norm::Rms],
                    dtype,
                    parameters,
                    true,
                    [2, 3, 2, d],
                )
                .check(&module);
            }
            fused(
                [Norm::Layer, Norm::None],
                dtype,
                parameters,
                true,
                [1, 2, 3, 88],
            )
            .check(&module);
            fused(
                [Norm::None, Norm::Layer],
                dtype,
                parameters,
                false,
                [1, 2, 3, 7],
            )
            .check(&module);
        }
        fused([Norm::Rms, Norm::None], dtype, dtype, true, [1, 1, 2, 264]).check(&module);
        fused(
            [Norm::Layer, Norm::Rms],
            dtype,
            dtype,
            false,
            [1, 2, 1, 128],
        )
        .check(&module);
    }
}

fn single(layer: bool, dtype: DType, weight: bool, shape: [usize; 4], margin: usize) -> Case {
    let [_, l, h, d] = shape;
    let mut draw = Draw(d as u64);
    let x = Strided::random(&mut draw, dtype, &shape, margin);
    let out = Strided::random(&mut draw, dtype, &shape, 2 * margin);
    let given = [draw.tensor(dtype, [d]), draw.tensor(dtype, [d])];
    let positions: Vec<f64> = (0..l).map(|i| i as f64).collect();
    let rope = rope_table(&positions, d, 100.0, &Device::cpu()).unwrap();
    let turned = Some((rope.0.view(), rope.1.view()));
    let [gain, bias] = given.each_ref().map(Tensor::view);
    let gain: Option<View<'_>> = weight.then_some(gain);
    let want = match layer {
        true => layer_norm_rope(x.view(), given[0].view(), bias, EPS, turned),
        false => rms_norm_rope(x.view(), gain, EPS, turned),
    };
    let mut memory = Memory::default();
    let (from, to) = (memory.put(&x), memory.output(&out));
    let [gain, bias] = given.map(|p| (memory.put(&Strided::of(p)), kind(dtype, dtype)));
    let mut own = Stream {
        x: from,
        out: to,
        norm: if layer { Norm::Layer } else { Norm::Rms },
        ..UNUSED
    };
    if layer || weight {
        own.gain = gain;
    }
    if layer {
        own.bias = bias;
    }
    let tables = tables(&mut memory, Some(&rope));
    let (lanes, aligned) = lanes(dtype, d, margin);
    let (x, o) = (x.strides(), out.strides());
    let args = walk(&shape, &[&x, &x, &x, &o, &o, &o])
        .and(parameters([own, UNUSED, UNUSED], tables, h, l))
        .f32(EPS)
        .u32(lanes)
        .u32(u32::from(aligned));
    let rows = (shape[0] * l * h) as u32;
    Case::new(format!("norm_rope_{dtype}"), memory, args)
        .named(format!(
            "layer {layer}, weight {weight}, {shape:?} margin {margin}"
        ))
        .grid([rows.div_ceil(64 / lanes), 1, 1], [64, 1, 1])
        .expect(to, &out, want.unwrap(), TOLERANCE)
}

#[test]
fn one_stream_is_the_processors() {
    let module = module(TEXT);
    for dtype in FLOATS {
        single(false, dtype, false, [2, 2, 3, 16], 16).check(&module);
        single(false, dtype, true, [2, 2, 3, 10], 3).check(&module);
        single(true, dtype, true, [1, 3, 2, 72], 16).check(&module);
    }
}

#[test]
fn seeded_bugs_are_found() {
    let case = fused(
        [Norm::Rms, Norm::Layer],
        DType::BF16,
        DType::F32,
        true,
        [2, 3, 2, 40],
    );
    assert_found(TEXT, &case, "neg.f32", "mov.f32");
    assert_found(TEXT, &case, "shfl.sync.bfly.b32", "shfl.sync.up.b32");
    assert_found(TEXT, &case, "sqrt.rn.f32", "mov.f32");
    assert_found(TEXT, &case, "rem.u32", "div.u32");
    assert_found(TEXT, &case, "cvt.rn.bf16x2.f32", "cvt.rz.bf16x2.f32");
}
