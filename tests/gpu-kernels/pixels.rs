//! Planes as interleaved bytes.

use crate::case::{Case, assert_found, module};
use crate::support::{Args, Draw, FLOATS, Memory, Strided};
use xdit_kernels::{DType, Device, Tensor, elementwise::scale_shift, pixels::rgb8};

const TEXT: &str = include_str!("../../xdit-kernels/src/pixels/pixels.sm_80.ptx");

fn case_of(planes: &Tensor) -> Case {
    let want = rgb8(planes).unwrap();
    let out = Strided::of(want.clone());
    let mut memory = Memory::default();
    let (from, to) = (
        memory.put(&Strided::of(planes.clone())),
        memory.output(&out),
    );
    let (images, pixels) = (planes.shape()[0], planes.shape()[2] * planes.shape()[3]);
    let aligned = pixels.is_multiple_of(4);
    let each = if aligned { 4 } else { 1 };
    let args = Args::default()
        .u64(from)
        .u64(to)
        .u64(pixels as u64)
        .u32(u32::from(aligned));
    Case::new(format!("rgb8_{}", planes.dtype()), memory, args)
        .named(format!("{:?}", planes.shape()))
        .grid(
            [pixels.div_ceil(64 * each) as u32, images as u32, 1],
            [64, 1, 1],
        )
        // Equal to the bit.
        .expect(to, &out, want, 0.0)
}

/// Values from −0.5 to 1.5.
fn case(dtype: DType, shape: [usize; 4]) -> Case {
    let values = Draw(shape[3] as u64).tensor(dtype, shape);
    case_of(&scale_shift(&values, 0.5, 0.5).unwrap())
}

#[test]
fn pixels_are_the_processors() {
    let module = module(TEXT);
    for dtype in FLOATS {
        case(dtype, [2, 3, 10, 30]).check(&module);
        case(dtype, [2, 3, 5, 15]).check(&module);
    }
    let special = [
        0.5 / 255.0,
        1.5 / 255.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
    ];
    let special = Tensor::from_slice(&special, [1, 3, 1, 2], &Device::cpu());
    case_of(&special.unwrap()).check(&module);
}

#[test]
fn seeded_bugs_are_found() {
    let whole = case(DType::F32, [2, 3, 10, 30]);
    assert_found(TEXT, &whole, "cvt.rni.u32.f32", "cvt.rzi.u32.f32");
    assert_found(TEXT, &whole, "shl.b32", "shr.b32");
    assert_found(
        TEXT,
        &case(DType::F16, [2, 3, 5, 15]),
        "setp.ge.u64",
        "setp.gt.u64",
    );
}
