//! Two-dimensional convolution of channels-last pictures, with weights that are packed once.
//!
//! There are two algorithms. `Direct` is an implicit GEMM: a task copies its input tile (with padding, channels in vectors)
//! and walks over it with the taps of the kernel. `Winograd` is F(4×4, 3×3) (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2015): 4× fewer multiplications. Its interpolation points are 0, ±5/8, ±3/2 and ∞ instead
//! of the textbook's 0, ±1, ±2 and ∞: every constant is still exact in f32, and the error on random data is 1.6× that of a
//! plain f32 sum instead of 3.6×. Both sum in f32 whatever the dtype. `Winograd` multiplies in f32, and so does `Direct`, but
//! for bf16 by bf16 on [`Tier::Avx512Bf16`](crate::Tier): there it uses the instruction. [`Conv2dOptions::weight_form`] chooses.
//!
//! On a GPU every convolution is a direct one, an implicit GEMM on tensor units in bf16 and f16 and in FMAs in f32. Weights keep
//! their dtype.
//!
//! # Scratch
//! Each thread holds one block at a time, whatever the size of the picture. For a 3×3 kernel and as many channels out as in:
//! `Direct` takes 0.6 to 0.9 MiB up to 512 channels and below 2 MiB up to 4096 (its target is 0.5 MiB without the rows and
//! columns that the kernel reaches beyond a tile). `Winograd` takes 2 MiB at 128 channels, 8 MiB from 512 on, and from 2048
//! on 4 KiB a channel, which is one group of 14 tiles.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod options;
mod rows;
#[cfg(test)]
mod tests;

use crate::{
    DType, Device, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, WeightForm,
    dispatch::{one_device, readable_by},
};
use cpu::PackedConv2d;
#[cfg(feature = "cuda")]
use cuda::CudaConv2d;
use options::MAX_PADDING;
pub use options::{Algorithm, Conv2dOptions, Padding};

/// What errors call these kernels.
const OP: &str = "conv2d";

/// A convolution, whose weights one device holds. Threads share it by reference.
///
/// # Examples
/// ```
/// use xdit_kernels::conv2d::{Conv2d, Conv2dOptions, Padding};
/// use xdit_kernels::{DType, Device, Tensor};
/// // A 3×3 box filter over one channel.
/// let weight = Tensor::from_slice(&[1f32; 9], [1, 1, 3, 3], &Device::cpu())?;
/// let options = Conv2dOptions { padding: Padding::all(1), ..Conv2dOptions::default() };
/// let conv = Conv2d::pack(&weight, None, options, DType::F32, &Device::cpu())?;
/// let x = Tensor::from_slice(&[1f32; 9], [1, 3, 3, 1], &Device::cpu())?;
/// let y = conv.forward(&x)?.to_vec_blocking::<f32>()?;
/// let want = [4., 6., 4., 6., 9., 6., 4., 6., 4.];
/// assert!(y.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct Conv2d {
    /// `[oc, ic, kh, kw]`.
    shape: [usize; 4],
    options: Conv2dOptions,
    dtype: DType,
    form: WeightForm,
    device: Device,
    weights: ConvWeights,
}

/// Weights and bias as the kernels of a kind of device read them.
#[derive(Debug)]
enum ConvWeights {
    Cpu(PackedConv2d),
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaConv2d>),
}

impl Conv2d {
    /// The convolution with this weight and bias, rounded to `dtype` and packed for `device`.
    ///
    /// # Shapes
    /// `weight` `[oc, ic, kh, kw]` as PyTorch keeps it, `bias` `[oc]`.
    ///
    /// # Errors
    /// If a dim of the weight is 0, the bias does not fit, a dtype is not a float, the stride is 0, a padding is above 2^31,
    /// [`Algorithm::Winograd`] is asked for and the kernel is not 3×3 with stride 1, `weight` and `bias` are on two devices,
    /// `device` cannot read their memory, or there is no memory.
    pub fn pack<'a>(
        weight: impl Into<View<'a>>,
        bias: Option<View<'_>>,
        options: Conv2dOptions,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let weight = weight.into();
        let &[oc, ic, kh, kw] = weight.shape() else {
            return Err(Error::shape(OP, "a weight [oc, ic, kh, kw]", weight));
        };
        if weight.numel() == 0 {
            return Err(Error::shape(OP, "a weight without a dim of 0", weight));
        }
        if let Some(bias) = bias.filter(|bias| bias.shape() != [oc]) {
            return Err(Error::shape(OP, format!("a bias [{oc}]"), bias));
        }
        for dtype in [Some(dtype), Some(weight.dtype()), bias.map(|b| b.dtype())] {
            dtype.map(|dtype| dtype.float(OP)).transpose()?;
        }
        if options.stride == 0 {
            return Err(Error::shape(OP, "a stride of at least 1", options.stride));
        }
        let p = options.padding;
        if [p.top, p.bottom, p.left, p.right]
            .iter()
            .any(|&n| n > MAX_PADDING)
        {
            let wanted = format!("at most {MAX_PADDING} rows or columns of padding");
            return Err(Error::shape(OP, wanted, p));
        }
        if options.algorithm == Algorithm::Winograd && !options.winograd_fits([kh, kw]) {
            let wanted = "a 3x3 kernel with stride 1 for Winograd";
            return Err(Error::shape(OP, wanted, (weight, options.stride)));
        }
        let shape = [oc, ic, kh, kw];
        let form = options.weight_form(shape, dtype, device);
        let operands = [Some(weight.device()), bias.map(|bias| bias.device())];
        let weights = match readable_by(OP, device, operands.into_iter().flatten())? {
            DeviceKind::Cpu(tier) => {
                ConvWeights::Cpu(PackedConv2d::new(weight, bias, form, shape, dtype, tier)?)
            }
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let packed = CudaConv2d::new(weight, bias, shape, dtype, device)?;
                ConvWeights::Cuda(Box::new(packed))
            }
        };
        Ok(Self {
            shape,
            options,
            dtype,
            form,
            device: device.clone(),
            weights,
        })
    }

    /// Number of input channels.
    pub fn in_channels(&self) -> usize {
        self.shape[1]
    }

    /// Number of output channels.
    pub fn out_channels(&self) -> usize {
        self.shape[0]
    }

    /// The form in which the convolution holds its weights.
    pub fn form(&self) -> WeightForm {
        self.form
    }

    /// The device that holds the weights, and that computes the convolution.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype that the weights were rounded to. [`form`](Self::form) tells how they are held.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes that the convolution takes in the memory of its device: weights, padding and bias.
    pub fn byte_len(&self) -> usize {
        match &self.weights {
            ConvWeights::Cpu(packed) => packed.byte_len(),
            #[cfg(feature = "cuda")]
            ConvWeights::Cuda(packed) => packed.byte_len(),
        }
    }

    /// The convolution of `x`, in the dtype of `x`.
    ///
    /// # Shapes
    /// `x` `[b, h, w, ic]`; the result `[b, (h + top + bottom - kh) / stride + 1, …, oc]`. With `upsample`, h and w are doubled
    /// first.
    ///
    /// # Errors
    /// If the channels differ, the dtype is not a float, the padded input is smaller than the kernel, the input is on another
    /// device than the weights, or there is no memory.
    pub fn forward<'a>(&self, x: impl Into<View<'a>>) -> Result<Tensor> {
        self.forward_with(x, None)
    }

    /// The convolution of `x` plus `residual`, which has the shape and dtype of the result.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and if the residual does not fit.
    pub fn forward_with<'a>(
        &self,
        x: impl Into<View<'a>>,
        residual: Option<View<'_>>,
    ) -> Result<Tensor> {
        let x = x.into();
        let shape = self.output_shape(&x, x.shape())?;
        // SAFETY: `forward_into` writes every element of its output.
        let mut out = unsafe { TensorMut::uninit(OP, shape, x.dtype(), x.device())? };
        self.forward_into(x, residual, out.view_mut())?;
        Ok(out.freeze())
    }

    /// Writes the result of [`forward_with`](Self::forward_with) into `out`.
    ///
    /// # Errors
    /// As [`forward_with`](Self::forward_with); also if `out` has another shape or dtype, its channels are not adjacent, or it
    /// is on another device.
    pub fn forward_into<'a>(
        &self,
        x: impl Into<View<'a>>,
        residual: Option<View<'_>>,
        out: ViewMut<'_>,
    ) -> Result<()> {
        let x = x.into();
        let shape = self.output_shape(&x, x.shape())?;
        self.window(x, residual, 0, shape, out)
    }

    /// Writes the rows of the result from `first` on into `out`, whose shape is `shape`. The result has so many rows.
    fn window(
        &self,
        x: View<'_>,
        residual: Option<View<'_>>,
        first: usize,
        shape: [usize; 4],
        out: ViewMut<'_>,
    ) -> Result<()> {
        x.dtype().float(OP)?;
        out.expect(OP, &shape, x.dtype())?;
        if out.strides()[3] != 1 && shape[3] != 1 {
            return Err(Error::shape(OP, "an output with contiguous channels", out));
        }
        if let Some(r) = residual.filter(|r| r.shape() != shape || r.dtype() != x.dtype()) {
            let wanted = format!("a residual {shape:?} of {}", x.dtype());
            return Err(Error::shape(OP, wanted, r));
        }
        let [oc, ic, kh, kw] = self.shape;
        let [b, h, w, _] = shape;
        let _span = tracing::trace_span!("conv2d", b, h, w, ic, oc, kh, kw).entered();
        let operands = [
            Some(&self.device),
            Some(x.device()),
            residual.map(|r| r.device()),
            Some(out.device()),
        ];
        one_device(OP, operands.into_iter().flatten())?;
        if shape.contains(&0) {
            return Ok(());
        }
        match &self.weights {
            ConvWeights::Cpu(packed) => {
                out.written_by(|out| cpu::conv2d(packed, &self.options, x, residual, first, out))
            }
            #[cfg(feature = "cuda")]
            ConvWeights::Cuda(packed) => {
                out.written_by(|out| cuda::conv2d(packed, &self.options, x, residual, first, out))
            }
        }
    }

    /// The shape of the result for an input of `shape`. Errors show `x`.
    fn output_shape(&self, x: &View<'_>, shape: &[usize]) -> Result<[usize; 4]> {
        let [oc, ic, kh, kw] = self.shape;
        let wrong = |expected: String| Err(Error::shape(OP, expected, x));
        let &[b, h, w, c] = shape else {
            return wrong(format!("an input [b, h, w, {ic}]"));
        };
        if c != ic {
            return wrong(format!("an input [b, h, w, {ic}]"));
        }
        let p = self.options.padding;
        let scale = if self.options.upsample { 2 } else { 1 };
        let size = |n: usize, before: usize, after: usize, k: usize| {
            let padded = n
                .checked_mul(scale)?
                .checked_add(before)?
                .checked_add(after)?;
            Some(padded.checked_sub(k)? / self.options.stride + 1)
        };
        match (size(h, p.top, p.bottom, kh), size(w, p.left, p.right, kw)) {
            (Some(oh), Some(ow)) => Ok([b, oh, ow, oc]),
            _ => wrong(format!(
                "an input that is, with its padding, at least {kh}x{kw}"
            )),
        }
    }
}
