//! Convolutions on a GPU: the weights as the kernels read them, and the launch.

use super::options::Conv2dOptions;
use crate::{
    DType, Device, Error, Result, Tensor, TensorMut, View, ViewMut,
    cuda::{Args, KernelParam, LaunchShape, PtxModule},
    layout,
    rows::Operand,
};

const OP: &str = "conv2d";

static MODULE: PtxModule = PtxModule {
    name: "conv2d",
    sm_80: include_str!("conv2d.sm_80.ptx"),
    sm_90a: None,
};

/// Channels of a chunk, and pixels of a tile, as in `conv2d.cu`.
const CHUNK: usize = 8;
const TILE_PIXELS: usize = 128;

/// A row of weights is a multiple of so many elements: what 16-bit kernels multiply in a step.
const DEPTH: usize = 32;

/// Numbers that the kernels count with, and sums of a few of them, fit in 32 bits.
const MOST: i64 = 1 << 29;

/// Weights and bias in the memory of a GPU.
#[derive(Debug)]
pub(super) struct CudaConv2d {
    /// `[oc, pitch]`: for each output channel the taps, each `[ic]` padded with zeros to chunks.
    rows: Tensor,
    /// f32, zeros where there is no bias; padded with zeros to chunks.
    bias: Tensor,
    /// `[oc, ic, kh, kw]`.
    shape: [usize; 4],
}

impl CudaConv2d {
    /// `weight` of `shape` `[oc, ic, kh, kw]` and `bias` `[oc]`, rounded to `dtype`, on `device`. The caller has checked the
    /// shapes. Weights are packed on the device that they come from.
    pub(super) fn new(
        weight: View<'_>,
        bias: Option<View<'_>>,
        shape: [usize; 4],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let [oc, ic, kh, kw] = shape;
        let too_large = || Error::OutOfMemory {
            op: OP,
            bytes: usize::MAX,
        };
        let channels = ic.checked_next_multiple_of(CHUNK).ok_or_else(too_large)?;
        let used = (kh
            .checked_mul(kw)
            .and_then(|taps| taps.checked_mul(channels)))
        .ok_or_else(too_large)?;
        let pitch = used.checked_next_multiple_of(DEPTH).ok_or_else(too_large)?;
        let mut rows = TensorMut::zeros([oc, pitch], dtype, weight.device())?;
        let taps = rows.view_mut().narrow(1, 0, used)?;
        let taps = taps.split_last(&[kh, kw, channels])?.narrow(3, 0, ic)?;
        layout::copy_into(weight.permute(&[0, 2, 3, 1])?, taps)?;
        let padded = oc.checked_next_multiple_of(CHUNK).ok_or_else(too_large)?;
        let mut biases = TensorMut::zeros([padded], DType::F32, weight.device())?;
        if let Some(bias) = bias {
            let rounded = layout::cast(bias, dtype)?;
            layout::copy_into(&rounded, biases.view_mut().narrow(0, 0, oc)?)?;
        }
        Ok(Self {
            rows: rows.freeze().to_device(device)?,
            bias: biases.freeze().to_device(device)?,
            shape,
        })
    }

    /// Bytes of weights and bias, padding included.
    pub(super) fn byte_len(&self) -> usize {
        self.rows.byte_len() + self.bias.byte_len()
    }
}

/// As in `conv2d.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct ConvLaunch {
    x_strides: [i64; 3],
    residual_strides: [i64; 3],
    out_strides: [i64; 3],
    pixels: i32,
    oh: i32,
    ow: i32,
    h: i32,
    w: i32,
    top: i32,
    left: i32,
    stride: i32,
    shift: i32,
    kh: i32,
    kw: i32,
    ic: i32,
    oc: i32,
    chunks: i32,
    pitch: i32,
    wide: i32,
}

// SAFETY: `#[repr(C)]`, with the fields of `conv2d.cu` and no address.
unsafe impl KernelParam for ConvLaunch {}

/// Writes the rows of the result from `first` on into `out`. The caller has checked shapes, dtypes and devices, and that `out`
/// is not empty.
pub(super) fn conv2d(
    packed: &CudaConv2d,
    options: &Conv2dOptions,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    mut out: ViewMut<'_>,
) -> Result<()> {
    if x.dtype() != packed.rows.dtype() {
        return in_f32(packed, options, x, residual, first, out);
    }
    let device = out.device();
    let x = Operand::new(x.on(device), x.dtype())?;
    let residual = residual.map(|r| Operand::new(r.on(device), r.dtype()));
    let residual = residual.transpose()?;
    let (x, residual) = (x.view(), residual.as_ref().map(Operand::view));
    let call = conv_launch(packed, options, x, residual, first, &mut out)?;
    let oc = packed.shape[0];
    let aligned = packed.shape[1].is_multiple_of(CHUNK) && in_vectors(x, x.ptr());
    let (name, tile, threads) = match (x.dtype(), aligned) {
        (DType::F32, _) => ("conv2d_f32", 64, 256),
        (DType::BF16, true) if oc <= 32 => ("conv2d_narrow_bf16", 32, 128),
        (DType::BF16, true) => ("conv2d_bf16", 128, 128),
        (DType::BF16, false) => ("conv2d_gather_bf16", 128, 128),
        (_, true) if oc <= 32 => ("conv2d_narrow_f16", 32, 128),
        (_, true) => ("conv2d_f16", 128, 128),
        (_, false) => ("conv2d_gather_f16", 128, 128),
    };
    let pixels = call.pixels as usize;
    let blocks = pixels
        .div_ceil(TILE_PIXELS)
        .saturating_mul(oc.div_ceil(tile));
    let blocks = small("blocks of channels and pixels", blocks as i64)? as u32;
    let mut args = Args::new();
    args.push(x.ptr());
    args.push(packed.rows.view().ptr());
    args.push(packed.bias.view().ptr());
    args.push(residual.map_or(std::ptr::null(), |r| r.ptr()));
    args.push(out.ptr());
    args.push(call);
    let queue = device.expect_cuda();
    // SAFETY: the kernel reads the pixels of `x`, the weights that `packed` holds and the residual, and writes the pixels of `out`,
    // all by the strides and sizes of their views, which lie in memory of the queue. Copies made here return to it in its order.
    unsafe { queue.launch(OP, &MODULE, name, LaunchShape::rows(blocks, threads), &args) }
}

/// A convolution whose input is of another dtype than the weights: both are widened, and the sums rounded once.
fn in_f32(
    packed: &CudaConv2d,
    options: &Conv2dOptions,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    out: ViewMut<'_>,
) -> Result<()> {
    let device = out.device();
    let wide = CudaConv2d {
        rows: layout::cast(packed.rows.view().on(device), DType::F32)?,
        bias: packed.bias.clone(),
        shape: packed.shape,
    };
    let x = layout::cast(x.on(device), DType::F32)?;
    let residual = residual.map(|r| layout::cast(r.on(device), DType::F32));
    let residual = residual.transpose()?;
    let residual = residual.as_ref().map(Tensor::view);
    if out.dtype() == DType::F32 {
        return conv2d(&wide, options, x.view(), residual, first, out);
    }
    // SAFETY: `conv2d` writes every element of its output.
    let mut sums = unsafe { TensorMut::uninit(OP, out.shape(), DType::F32, device)? };
    conv2d(&wide, options, x.view(), residual, first, sums.view_mut())?;
    layout::copy_into(&sums.freeze(), out)
}

/// Sizes and strides of a call.
fn conv_launch(
    packed: &CudaConv2d,
    options: &Conv2dOptions,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    out: &mut ViewMut<'_>,
) -> Result<ConvLaunch> {
    let [oc, ic, kh, kw] = packed.shape;
    let [b, oh, ow, _] = [0, 1, 2, 3].map(|d| out.shape()[d]);
    let shift = usize::from(options.upsample);
    // One output has no neighbour, whatever the stride.
    let stride = match (oh, ow) {
        (1, 1) => 1,
        _ => options.stride,
    };
    let (ptr, strides) = (out.ptr(), out.strides());
    let wide = oc.is_multiple_of(CHUNK)
        && strides_fit(out.shape(), strides)
        && ptr.addr().is_multiple_of(16)
        && residual.is_none_or(|r| in_vectors(r, r.ptr()));
    let product = |a: usize, b: usize| i64::try_from(a.saturating_mul(b)).unwrap_or(i64::MAX);
    let pixels = product(b.saturating_mul(oh), ow);
    let top = product(1, options.padding.top).saturating_sub(product(first, options.stride));
    // The inputs of the last output.
    small("rows", product(oh, stride))?;
    small("columns", product(ow, stride))?;
    let of = |strides: &[usize]| [0, 1, 2].map(|d| strides[d] as i64);
    Ok(ConvLaunch {
        x_strides: of(x.strides()),
        residual_strides: residual.map_or([0; 3], |r| of(r.strides())),
        out_strides: of(strides),
        pixels: small("pixels", pixels)?,
        oh: small("rows", product(1, oh))?,
        ow: small("columns", product(1, ow))?,
        h: small("rows", product(x.dim(1), 1 << shift))?,
        w: small("columns", product(x.dim(2), 1 << shift))?,
        top: small("rows", top)?,
        left: small("columns", product(1, options.padding.left))?,
        stride: small("rows", product(1, stride))?,
        shift: shift as i32,
        kh: small("rows", product(1, kh))?,
        kw: small("columns", product(1, kw))?,
        ic: small("channels", product(1, ic))?,
        oc: small("channels", product(1, oc))?,
        chunks: small("channels", product(1, ic.div_ceil(CHUNK)))?,
        pitch: small("weights of a channel", product(1, packed.rows.dim(1)))?,
        wide: i32::from(wide),
    })
}

/// The number, if the kernels can count with it.
fn small(of: &str, n: i64) -> Result<i32> {
    match i32::try_from(n)
        .ok()
        .filter(|n| i64::from(*n).abs() <= MOST)
    {
        Some(n) => Ok(n),
        None => Err(Error::shape(
            OP,
            format!("at most 2^29 {of} on a GPU, padding and strides included"),
            n,
        )),
    }
}

/// Whether each pixel's channels begin at a multiple of 16 bytes. They are adjacent.
fn in_vectors(x: View<'_>, ptr: *const u8) -> bool {
    ptr.addr().is_multiple_of(16) && strides_fit(x.shape(), x.strides())
}

/// Whether pixels are whole chunks apart; a dim of one pixel has no distance.
fn strides_fit(shape: &[usize], strides: &[usize]) -> bool {
    (0..3).all(|d| shape[d] == 1 || strides[d].is_multiple_of(CHUNK))
}
