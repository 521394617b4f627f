//! The launches on a GPU: sums of chunks of pixels and their totals, then each channel's affine map and its application.

use super::parameters::{OP, Parameters};
use crate::{
    DType, Error, Result, View, ViewMut,
    cuda::{Args, KernelParam, LaunchShape, MOST_BLOCKS_Y, PtxModule},
    layout,
    numbers::DeviceNumbers,
    rows::Operand,
};

static MODULE: PtxModule = PtxModule {
    name: "group_norm",
    sm_80: include_str!("group_norm.sm_80.ptx"),
    sm_90a: None,
};

/// Threads of a block.
const THREADS: usize = 256;
/// Pixels of one f32 sum, at most.
const MOST_RUN: usize = 64;
/// Blocks that a launch aims at: several for each multiprocessor of the largest GPUs.
const BLOCKS: usize = 1024;
/// Numbers of pixels, of elements of a row and of blocks stay below.
const MOST: usize = 1 << 31;

/// As in `group_norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Strides {
    picture: u64,
    row: u64,
    column: u64,
}

impl Strides {
    fn of(strides: &[usize]) -> Self {
        let [picture, row, column] = [0, 1, 2].map(|d| strides[d] as u64);
        Self {
            picture,
            row,
            column,
        }
    }
}

/// As in `group_norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct PixelShape {
    pixels: u32,
    w: u32,
    c: u32,
    chunks: u32,
    run: u32,
}

/// As in `group_norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct AffineShape {
    pixels: f64,
    weight_stride: u64,
    bias_stride: u64,
    weight_kind: u32,
    bias_kind: u32,
    c: u32,
    groups: u32,
    count: u32,
    eps: f32,
}

// SAFETY: `#[repr(C)]`, with the fields of `group_norm.cu` and no address.
unsafe impl KernelParam for Strides {}
// SAFETY: as above.
unsafe impl KernelParam for PixelShape {}
// SAFETY: as above.
unsafe impl KernelParam for AffineShape {}

/// How blocks share the pixels of pictures.
struct PixelPlan {
    shape: PixelShape,
    launch: LaunchShape,
    /// The kernels that fit: of sums, and of the normalisation.
    kernels: [&'static str; 2],
}

impl PixelPlan {
    /// Of `x`, which is not empty and whose channels are adjacent. `others` are the strides and the address of what is written.
    fn new(x: View<'_>, other: Option<(&[usize], *const u8)>) -> Result<Self> {
        let [b, h, w, c] = [0, 1, 2, 3].map(|d| x.dim(d));
        let vector = 16 / x.dtype().size();
        let fits = |(strides, ptr): (&[usize], *const u8)| {
            let far = (0..3).all(|d| x.dim(d) == 1 || strides[d].is_multiple_of(vector));
            far && ptr.addr().is_multiple_of(16)
        };
        let views = [Some((x.strides(), x.ptr())), other];
        let aligned = c.is_multiple_of(vector) && views.iter().flatten().all(|&view| fits(view));
        let gapless = |strides: &[usize]| h == 1 || strides[1] == w * strides[2];
        let joined = views.iter().flatten().all(|(strides, _)| gapless(strides));
        let vectors = if aligned { c / vector } else { c };
        let across = vectors.next_power_of_two().min(THREADS);
        let (columns, down) = (vectors.div_ceil(across), THREADS / across);
        let pixels = h * w;
        // A thread for so many pixels that the blocks are enough.
        let run = (pixels.div_ceil(down).saturating_mul(columns * b) / BLOCKS).clamp(4, MOST_RUN);
        let chunks = pixels.div_ceil(down * run);
        let blocks = chunks.saturating_mul(b);
        if pixels >= MOST || blocks >= MOST || columns > MOST_BLOCKS_Y {
            let want = "pictures of fewer than 2^31 pixels and at most 16776960 channels on a GPU";
            return Err(Error::shape(OP, want, x));
        }
        let [pixels, row, c, chunks, run] =
            [pixels, if joined { pixels } else { w }, c, chunks, run].map(|n| n as u32);
        Ok(Self {
            shape: PixelShape {
                pixels,
                w: row,
                c,
                chunks,
                run,
            },
            launch: LaunchShape {
                grid: [blocks as u32, columns as u32, 1],
                block: [across as u32, down as u32, 1],
                shared_bytes: 0,
            },
            kernels: match (x.dtype(), aligned) {
                (DType::F32, true) => ["group_sums_f32", "group_norm_f32"],
                (DType::F32, false) => ["group_sums_single_f32", "group_norm_single_f32"],
                (DType::BF16, true) => ["group_sums_bf16", "group_norm_bf16"],
                (DType::BF16, false) => ["group_sums_single_bf16", "group_norm_single_bf16"],
                (_, true) => ["group_sums_f16", "group_norm_f16"],
                (_, false) => ["group_sums_single_f16", "group_norm_single_f16"],
            },
        })
    }
}

/// Writes Σx and Σx² of each group of each picture of `x` to `to`, which has room for them and is zeros.
pub(super) fn sums(x: View<'_>, groups: usize, to: &mut DeviceNumbers) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    x.dtype().float(OP)?;
    let queue = x.device().expect_cuda();
    let x = Operand::new(x, x.dtype())?;
    let x = x.view();
    let plan = PixelPlan::new(x, None)?;
    let (b, c, chunks) = (x.dim(0), x.dim(3), plan.shape.chunks as usize);
    // Two f64 a channel of each chunk.
    let bytes = (b * chunks).saturating_mul(c * 16);
    let partial = queue.alloc(OP, bytes)?;
    let [kernel, _] = plan.kernels;
    let mut args = Args::new();
    args.push(x.ptr());
    args.push(partial.ptr());
    args.push(Strides::of(x.strides()));
    args.push(plan.shape);
    // SAFETY: the kernel reads the pixels of `x` by its strides and writes two numbers for each chunk and channel, which
    // `partial` has room for. Both are memory of the queue.
    unsafe { queue.launch(OP, &MODULE, kernel, plan.launch, &args)? };
    let mut args = Args::new();
    args.push(partial.ptr().cast_const());
    args.push(to.on_cuda_mut(OP)?);
    args.push(groups as u32);
    args.push(plan.shape.chunks);
    args.push((c / groups) as u32);
    let shape = LaunchShape::rows(blocks(x, b, groups)?, THREADS as u32);
    // SAFETY: the kernel reads what the first one wrote, and writes two numbers for each group of each picture, for which the
    // caller has made room.
    unsafe { queue.launch(OP, &MODULE, "group_totals", shape, &args) }
}

/// Number of blocks, one for each group of each picture.
fn blocks(x: View<'_>, b: usize, groups: usize) -> Result<u32> {
    let blocks = b.checked_mul(groups).filter(|&n| n < MOST);
    let blocks = blocks.ok_or_else(|| Error::shape(OP, "fewer than 2^31 groups on a GPU", x))?;
    Ok(blocks as u32)
}

/// Brings `x` to `out`; `numbers` are its [`sums`] over `pixels` pixels.
pub(super) fn run(
    x: View<'_>,
    numbers: &DeviceNumbers,
    pixels: f64,
    parameters: &Parameters<'_>,
    mut out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    x.dtype().float(OP)?;
    let device = out.device();
    let x = Operand::new(x.on(device), x.dtype())?;
    let x = x.view();
    let (b, c, groups) = (x.dim(0), x.dim(3), parameters.groups);
    let queue = device.expect_cuda();
    // A mean, a scale and a bias for each channel of each picture.
    let affine = queue.alloc(OP, b.saturating_mul(12 * c))?;
    let (weight, bias) = (parameters.weight, parameters.bias);
    let bias_copy;
    // The kernel takes f32 and one other dtype.
    weight.dtype().float(OP)?;
    bias.dtype().float(OP)?;
    let (dtype, bias) = match (weight.dtype(), bias.dtype()) {
        (DType::F32, dtype) => (dtype, bias),
        (dtype, other) if other == dtype || other == DType::F32 => (dtype, bias),
        (dtype, _) => {
            bias_copy = layout::cast(bias.on(device), DType::F32)?;
            (dtype, bias_copy.view())
        }
    };
    let kernel = match dtype {
        DType::F32 => "group_affine_f32",
        DType::BF16 => "group_affine_bf16",
        _ => "group_affine_f16",
    };
    let kind = |of: DType| if of == DType::F32 { 1 } else { 2 };
    let count = blocks(x, b, c)?;
    let mut args = Args::new();
    args.push(numbers.on_cuda());
    args.push(weight.ptr());
    args.push(bias.ptr());
    args.push(affine.ptr());
    args.push(AffineShape {
        pixels,
        weight_stride: weight.strides()[0] as u64,
        bias_stride: bias.strides()[0] as u64,
        weight_kind: kind(weight.dtype()),
        bias_kind: kind(bias.dtype()),
        c: c as u32,
        groups: groups as u32,
        count,
        eps: parameters.eps,
    });
    let shape = LaunchShape::rows(count.div_ceil(THREADS as u32), THREADS as u32);
    // SAFETY: the kernel reads the sums of each group, whose number the caller has checked, and weight and bias, one element a
    // channel by their strides; it writes three numbers for each channel of each picture. All are memory of the queue.
    unsafe { queue.launch(OP, &MODULE, kernel, shape, &args)? };
    let to = out.ptr();
    let plan = PixelPlan::new(x, Some((out.strides(), to)))?;
    let [_, kernel] = plan.kernels;
    let mut args = Args::new();
    args.push(x.ptr());
    args.push(affine.ptr().cast_const());
    args.push(to);
    args.push(Strides::of(x.strides()));
    args.push(Strides::of(out.strides()));
    args.push(plan.shape);
    args.push(u32::from(parameters.silu));
    // SAFETY: the kernel reads the pixels of `x` and writes those of `out`, which has its shape, by their strides; it reads what
    // the kernel before it wrote. All are memory of the queue.
    unsafe { queue.launch(OP, &MODULE, kernel, plan.launch, &args) }
}
