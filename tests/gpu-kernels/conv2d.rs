//! Convolutions.

use crate::{
    case::{Case, module},
    chain::Chain,
    support::{Args, Draw, Memory, Strided, bytes, numbers},
};
use xdit_kernels::{
    DType, Device, Tensor,
    conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding},
};

const TEXT: &str = include_str!("../../xdit-kernels/src/conv2d/conv2d.sm_80.ptx");

/// The sums of the processor's kernel are in another order: an error of f32 that is small beside the greatest sum.
const TOLERANCE: f32 = 1e-6;

/// One convolution. `kernel` is the kernel's name without the dtype.
#[derive(Debug, Clone, Copy)]
struct Picture {
    kernel: &'static str,
    x: [usize; 4],
    oc: usize,
    size: [usize; 2],
    stride: usize,
    /// Above, below, before, after.
    padding: [usize; 4],
    upsample: bool,
    residual: bool,
    /// Rows of the result that are left out above and below.
    cut: [usize; 2],
    /// Elements behind each pixel, of the input and of the output.
    gap: usize,
}

const SAME: Picture = Picture {
    kernel: "conv2d",
    x: [2, 5, 7, 16],
    oc: 40,
    size: [3, 3],
    stride: 1,
    padding: [1; 4],
    upsample: false,
    residual: true,
    cut: [0; 2],
    gap: 16,
};

const ALIGNED: [Picture; 5] = [
    SAME,
    // Two tiles of pixels, two of channels, more channels in than a step takes; a kernel of one pixel.
    Picture {
        x: [1, 11, 13, 40],
        oc: 136,
        size: [1, 1],
        padding: [0; 4],
        gap: 0,
        ..SAME
    },
    // The downsampling of a VAE's encoder.
    Picture {
        x: [1, 6, 9, 32],
        stride: 2,
        padding: [0, 1, 0, 1],
        residual: false,
        ..SAME
    },
    // A band of the upsampling of a decoder.
    Picture {
        x: [1, 5, 4, 24],
        upsample: true,
        cut: [3, 2],
        ..SAME
    },
    // Another kernel, and channels out that 8 does not divide.
    Picture {
        x: [1, 7, 6, 8],
        oc: 35,
        size: [5, 2],
        padding: [3, 0, 0, 2],
        gap: 0,
        ..SAME
    },
];

const NARROW: [Picture; 2] = [
    Picture {
        kernel: "conv2d_narrow",
        oc: 3,
        gap: 0,
        ..SAME
    },
    Picture {
        kernel: "conv2d_narrow",
        x: [1, 9, 15, 8],
        oc: 32,
        size: [1, 1],
        padding: [0; 4],
        ..SAME
    },
];

const GATHERED: [Picture; 3] = [
    Picture {
        kernel: "conv2d_gather",
        x: [1, 12, 11, 3],
        oc: 130,
        gap: 0,
        ..SAME
    },
    Picture {
        kernel: "conv2d_gather",
        x: [2, 4, 5, 4],
        oc: 4,
        size: [1, 1],
        padding: [0; 4],
        residual: false,
        gap: 0,
        ..SAME
    },
    Picture {
        kernel: "conv2d_gather",
        x: [1, 3, 5, 19],
        oc: 9,
        stride: 2,
        upsample: true,
        cut: [1, 0],
        gap: 3,
        ..SAME
    },
];

/// Rows of weights and the bias as the kernels read them.
fn packed(weight: &Tensor, dtype: DType) -> (Tensor, usize) {
    let &[oc, ic, kh, kw] = weight.shape() else {
        unreachable!("a weight of four dims")
    };
    let chunks = ic.div_ceil(8);
    let pitch = (kh * kw * chunks * 8).next_multiple_of(32);
    let mut rows = vec![0f32; oc * pitch];
    for (at, value) in numbers(&bytes(weight), dtype).iter().enumerate() {
        let (tap, i, o) = (at % (kh * kw), at / (kh * kw) % ic, at / (kh * kw * ic));
        rows[o * pitch + tap * chunks * 8 + i] = *value as f32;
    }
    let rows = Tensor::from_slice(&rows, [oc, pitch], &Device::cpu()).unwrap();
    (rows.to_dtype(dtype).unwrap(), pitch)
}

fn case(picture: &Picture, dtype: DType) -> Case {
    let (mut draw, mut memory) = (Draw(7), Memory::default());
    let ([b, h, w, ic], [kh, kw], oc, gap) = (picture.x, picture.size, picture.oc, picture.gap);
    let x = Strided::random(&mut draw, dtype, &picture.x, gap);
    let weight = draw.tensor(dtype, [oc, ic, kh, kw]);
    let bias = draw.tensor(DType::F32, [oc]).to_dtype(dtype).unwrap();
    let [top, bottom, left, right] = picture.padding;
    let options = Conv2dOptions {
        stride: picture.stride,
        padding: Padding {
            top,
            bottom,
            left,
            right,
        },
        algorithm: Algorithm::Direct,
        upsample: picture.upsample,
    };
    let conv = Conv2d::pack(&weight, Some(bias.view()), options, dtype, &Device::cpu()).unwrap();
    let whole = conv.forward(x.view()).unwrap();
    let [first, below] = picture.cut;
    let shape = [b, whole.dim(1) - first - below, whole.dim(2), oc];
    let [_, oh, ow, _] = shape;
    let residual = Strided::random(&mut draw, dtype, &shape, 0);
    let added = picture.residual.then(|| residual.view());
    let want = conv
        .forward_rows(x.view(), added, first..first + oh)
        .unwrap();

    let (rows, pitch) = packed(&weight, dtype);
    let mut biases = bias
        .to_dtype(DType::F32)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    biases.resize(oc.next_multiple_of(8), 0.0);
    let out = Strided::random(&mut draw, dtype, &shape, gap);
    let to = memory.output(&out);
    let args = Args::default()
        .u64(memory.put(&x))
        .u64(memory.put(&Strided::of(rows)))
        .u64(
            memory.0.put(
                &biases
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect::<Vec<u8>>(),
            ),
        )
        .u64(if picture.residual {
            memory.put(&residual)
        } else {
            0
        })
        .u64(to);
    let mut call = Args::default();
    for strides in [x.strides(), residual.strides(), out.strides()] {
        for stride in &strides[..3] {
            call = call.u64(*stride as u64);
        }
    }
    let shift = usize::from(picture.upsample);
    let pixels = b * oh * ow;
    let wide = usize::from(oc.is_multiple_of(8) && gap.is_multiple_of(16));
    let top = top.wrapping_sub(first * picture.stride);
    for n in [
        pixels,
        oh,
        ow,
        h << shift,
        w << shift,
        top,
        left,
        picture.stride,
        shift,
        kh,
        kw,
        ic,
        oc,
        ic.div_ceil(8),
        pitch,
        wide,
    ] {
        // Two's complement: the input of a band begins above the first row.
        call = call.u32(n as u32);
    }
    let kernel = match dtype {
        DType::F32 => "conv2d",
        _ => picture.kernel,
    };
    let (tile, threads) = match (dtype, kernel) {
        (DType::F32, _) => (64, 256),
        (_, "conv2d_narrow") => (32, 128),
        _ => (128, 128),
    };
    let blocks = pixels.div_ceil(128) * oc.div_ceil(tile);
    Case::new(format!("{kernel}_{dtype}"), memory, args.of(call))
        .grid([blocks as u32, 1, 1], [threads, 1, 1])
        .named(format!("{picture:?}"))
        .expect(to, &out, want, TOLERANCE)
}

fn check(pictures: &[Picture], dtypes: &[DType]) {
    let module = module(TEXT);
    for picture in pictures {
        for dtype in dtypes {
            case(picture, *dtype).check(&module);
        }
    }
}

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

#[test]
fn aligned_inputs() {
    check(&ALIGNED, &HALVES);
}

#[test]
fn few_channels_out() {
    check(&NARROW, &HALVES);
}

#[test]
fn channels_of_any_number() {
    check(&GATHERED, &HALVES);
}

#[test]
fn f32_of_any_shape() {
    // Ten steps, several tiles, and as few steps as there are stages in flight; `NARROW` is the same kernel in f32.
    let [several, few] = [ALIGNED[1], GATHERED[1]].map(f32_tiles);
    check(&[SAME, several, few], &[DType::F32]);
    let module = module(TEXT);
    let schedules = module.schedules();
    // The first, and the last: another order of warps, and copies that complete late.
    let two = [schedules[0], schedules[schedules.len() - 1]];
    for picture in ALIGNED[2..].iter().chain([&GATHERED[0], &GATHERED[2]]) {
        case(&f32_tiles(*picture), DType::F32).check_under(&module, &two);
    }
}

/// A tile of f32 has 64 channels: no more than two tiles of them.
fn f32_tiles(picture: Picture) -> Picture {
    Picture {
        oc: picture.oc.min(72),
        ..picture
    }
}

#[test]
fn seeded_bugs_are_found() {
    let [halves, gathered] = [SAME, GATHERED[0]].map(|picture| case(&picture, DType::BF16));
    let floats = case(&SAME, DType::F32);
    // Four steps: the last one reads the stage that holds the offsets after it.
    let four = Picture {
        x: [1, 4, 5, 128],
        size: [1, 1],
        padding: [0; 4],
        ..SAME
    };
    let four = case(&four, DType::BF16);
    for (case, place, to) in [
        // A stage is read before its copies have arrived.
        (
            &halves,
            ("cp.async.wait_group 1", 0),
            "cp.async.wait_group 2",
        ),
        (&halves, ("cp.async.commit_group", 1), "//"),
        (
            &floats,
            ("cp.async.wait_group 1", 0),
            "cp.async.wait_group 2",
        ),
        // A stage is read before, or filled while, other warps are not ready.
        (&halves, ("bar.sync", 0), "//"),
        (&gathered, ("bar.sync", 0), "//"),
        (&floats, ("bar.sync", 0), "//"),
        // Offsets are stored in a stage that is still read, and read before they are there.
        (&four, ("bar.sync", 1), "//"),
        (&halves, ("bar.sync", 2), "//"),
        // A strip is read, and overwritten, too early.
        (&halves, ("bar.warp.sync", 0), "//"),
        (&halves, ("bar.warp.sync", 1), "//"),
        // The padding is not zero.
        (&halves, ("0, 16, %p", 0), "16, 16, %p"),
        // Chunks lie elsewhere than they are read.
        (&halves, ("xor.b32", 1), "or.b32"),
        // One column too many.
        (&halves, ("setp.ge.u32", 17), "setp.gt.u32"),
        // A product is left out.
        (&halves, ("mma.sync", 2), "//"),
    ] {
        Chain::from(case.clone()).assert_found(TEXT, &case.kernel, place, to);
    }
}
