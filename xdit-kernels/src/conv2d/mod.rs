//! Two-dimensional convolution of channels-last pictures, weights packed once.
//!
//! Two algorithms. `Direct` is an implicit GEMM: a task copies its input tile (with padding, channels in vectors) and
//! walks the taps over it. `Winograd` is F(4×4, 3×3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2015): 4× fewer multiplications. Its interpolation points are 0, ±5/8, ±3/2 and ∞ rather than the
//! textbook's 0, ±1, ±2: every constant is still exact in f32, and the error on random data is 1.6× that of a plain f32
//! sum instead of 3.6×. Both accumulate in f32 whatever the dtype.
//!
//! # Scratch
//! Each thread holds one block at a time, whatever the picture's size. For a 3×3 kernel and as many channels out as in:
//! `Direct` 0.6 to 1.1 MiB up to 512 channels and below 2 MiB up to 4096 (it aims at 0.5 MiB without the rows and columns
//! that the kernel reaches beyond a tile); `Winograd` 2 MiB at 128 channels, 8 MiB from 512 on, and from 2048 on what one
//! group of 14 tiles takes: 4 KiB a channel.

mod cpu;
mod direct;
mod narrow;
mod options;
mod pack;
mod rows;
#[cfg(test)]
mod tests;
mod transform;
mod winograd;

use crate::{
    DType, Device, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, WeightForm,
    dispatch::one_device, layout, rows::Floats,
};
use options::MAX_PADDING;
pub use options::{Algorithm, Conv2dOptions, Padding};
use pack::{Kind, Packed};

/// A convolution with its weights packed for one tier; shared by reference between threads.
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
    packed: Packed,
    /// One a channel, f32, zeros where there was none; padded to whole vectors.
    bias: Vec<f32>,
    shape: [usize; 4],
    options: Conv2dOptions,
    dtype: DType,
    device: Device,
}

impl Conv2d {
    /// The convolution with this weight and bias, rounded to `dtype` and packed for `device`.
    ///
    /// # Shapes
    /// `weight` `[oc, ic, kh, kw]` as PyTorch keeps it, `bias` `[oc]`; any dtype.
    ///
    /// # Errors
    /// If a dim of the weight is 0, the bias does not fit, the stride is 0, a padding is above 2^31, or `Algorithm::Winograd` is asked for and the
    /// kernel is not 3×3 with stride 1.
    pub fn pack<'a>(
        weight: impl Into<View<'a>>,
        bias: Option<View<'_>>,
        options: Conv2dOptions,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let weight = weight.into();
        dtype.float("conv2d")?;
        let &[oc, ic, kh, kw] = weight.shape() else {
            return Err(Error::shape("conv2d", "a weight [oc, ic, kh, kw]", weight));
        };
        if weight.numel() == 0 {
            return Err(Error::shape(
                "conv2d",
                "a weight without a dim of 0",
                weight,
            ));
        }
        if options.stride == 0 {
            return Err(Error::shape(
                "conv2d",
                "a stride of at least 1",
                options.stride,
            ));
        }
        let p = options.padding;
        if [p.top, p.bottom, p.left, p.right]
            .iter()
            .any(|&n| n > MAX_PADDING)
        {
            let want = format!("at most {MAX_PADDING} rows or columns of padding");
            return Err(Error::shape("conv2d", want, p));
        }
        let winograd_fits = kh == 3 && kw == 3 && options.stride == 1;
        let kind = match options.algorithm {
            Algorithm::Winograd if !winograd_fits => {
                return Err(Error::shape(
                    "conv2d",
                    "a 3x3 kernel with stride 1 for Winograd",
                    (weight, options.stride),
                ));
            }
            Algorithm::Winograd => Kind::Winograd,
            _ if oc <= narrow::MAX => Kind::Narrow,
            Algorithm::Auto if winograd_fits => Kind::Winograd,
            _ => Kind::Direct,
        };
        let weight = rounded(weight, dtype)?;
        let mut bias = match bias {
            None => vec![0.0; oc],
            Some(b) if b.shape() == [oc] => {
                Floats::new("conv2d", rounded(b, dtype)?.view(), &[oc])?.to_vec()
            }
            Some(b) => return Err(Error::shape("conv2d", format!("a bias [{oc}]"), b)),
        };
        let lanes = cpu::lanes(device.tier());
        bias.resize(oc.next_multiple_of(lanes), 0.0);
        Ok(Self {
            packed: Packed::new(&weight, kind, lanes)?,
            bias,
            shape: [oc, ic, kh, kw],
            options,
            dtype,
            device: device.clone(),
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

    /// The form that the weights are held in.
    pub fn form(&self) -> WeightForm {
        match self.packed.kind {
            Kind::Winograd => WeightForm::Winograd,
            Kind::Direct | Kind::Narrow => WeightForm::Dense(DType::F32),
        }
    }

    /// The dtype that the weights were rounded to. They are kept in f32, in which all is computed.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes that the packed weights and the bias take.
    pub fn byte_len(&self) -> usize {
        self.packed.byte_len() + self.bias.len() * size_of::<f32>()
    }

    /// The convolution of `x`, in its dtype.
    ///
    /// # Shapes
    /// `x` `[b, h, w, ic]`; the result `[b, (h + top + bottom - kh) / stride + 1, …, oc]`, where h is doubled first
    /// with `upsample`.
    ///
    /// # Errors
    /// If the channels differ, the padded input is smaller than the kernel, the input is on another device than the weights, or
    /// there is no memory.
    pub fn forward<'a>(&self, x: impl Into<View<'a>>) -> Result<Tensor> {
        self.forward_with(x, None)
    }

    /// The convolution of `x` plus `residual`, which has the result's shape and dtype.
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
        let mut out = unsafe { TensorMut::uninit("conv2d", shape, x.dtype(), x.device())? };
        self.forward_into(x, residual, out.view_mut())?;
        Ok(out.freeze())
    }

    /// As [`forward_with`](Self::forward_with), into `out`.
    ///
    /// # Errors
    /// As [`forward_with`](Self::forward_with), and if `out` has another shape or dtype.
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

    /// The result's rows from `first` on; `shape` is that of `out`, and there are so many.
    fn window(
        &self,
        x: View<'_>,
        residual: Option<View<'_>>,
        first: usize,
        shape: [usize; 4],
        out: ViewMut<'_>,
    ) -> Result<()> {
        out.expect("conv2d", &shape, x.dtype())?;
        if out.strides()[3] != 1 && shape[3] != 1 {
            return Err(Error::shape(
                "conv2d",
                "an output with contiguous channels",
                out,
            ));
        }
        if let Some(r) = residual.filter(|r| r.shape() != shape || r.dtype() != x.dtype()) {
            return Err(Error::shape(
                "conv2d",
                format!("a residual {shape:?} of {}", x.dtype()),
                r,
            ));
        }
        let [oc, ic, kh, kw] = self.shape;
        let [b, h, w, _] = shape;
        let _span = tracing::trace_span!("conv2d", b, h, w, ic, oc, kh, kw).entered();
        if shape.contains(&0) {
            return Ok(());
        }
        let operands = [
            Some(&self.device),
            Some(x.device()),
            residual.map(|r| r.device()),
        ];
        let operands = operands.into_iter().flatten().chain([out.device()]);
        match one_device("conv2d", operands)? {
            DeviceKind::Cpu(_) => out.written_by(|out| cpu::run(self, x, residual, first, out)),
        }
    }

    /// What an input of `shape` gives; `x` is what errors show.
    fn output_shape(&self, x: &View<'_>, shape: &[usize]) -> Result<[usize; 4]> {
        let [oc, ic, kh, kw] = self.shape;
        let wrong = |expected: String| Err(Error::shape("conv2d", expected, x));
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

/// The elements rounded to `dtype`, as f32.
fn rounded(x: View<'_>, dtype: DType) -> Result<Tensor> {
    layout::cast(x, dtype)?.to_dtype(DType::F32)
}
