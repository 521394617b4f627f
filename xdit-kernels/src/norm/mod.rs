//! Layer norm and RMS norm over the last dim, fused with their affine part or with a transformer block's modulation.
//!
//! Statistics are those of the row in f32: the mean first, then the squares of what is left (with the first pass's
//! rounding corrected, Chan, Golub and LeVeque 1983), so a mean that is large beside the deviation costs no digits.

mod after;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{
    DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut,
    dispatch::{expect_parameter, expect_rows, one_device},
};
use after::After;
pub(crate) use cpu::{moments, sum, sum_of_squares};

fn last_dim(op: &'static str, x: &View<'_>) -> Result<usize> {
    x.shape()
        .last()
        .copied()
        .ok_or_else(|| Error::shape(op, "at least one dim", x))
}

/// (x − mean) / √(variance + eps), times weight, plus bias; in x's dtype.
///
/// # Shapes
/// x is `[.., c]`; weight and bias, of any dtype, are `[c]` (left out: 1 and 0).
///
/// # Errors
/// If a parameter is not `[c]` or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, norm::layer_norm};
/// let device = &Device::cpu();
/// let x = [1f32, 3., 10., 30.];
/// let y = layer_norm(View::from_slice(&x, [2, 2], device)?, None, None, 0.0)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [-1., 1., -1., 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn layer_norm<'a>(
    x: impl Into<View<'a>>,
    weight: Option<View<'_>>,
    bias: Option<View<'_>>,
    eps: f32,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `layer_norm_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("layer_norm", x.shape(), x.dtype(), x.device())? };
    layer_norm_into(x, weight, bias, eps, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`layer_norm`] returns into `out`.
///
/// # Errors
/// If a parameter is not `[c]`, or `out` differs from x in shape or dtype.
pub fn layer_norm_into<'a>(
    x: impl Into<View<'a>>,
    weight: Option<View<'_>>,
    bias: Option<View<'_>>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "layer_norm";
    let x = x.into();
    let c = last_dim(OP, &x)?;
    let _span = tracing::trace_span!("layer_norm", n = x.numel(), c).entered();
    expect_rows(OP, &out, x.shape(), x.dtype())?;
    for parameter in [weight, bias].iter().flatten() {
        expect_parameter(OP, parameter, &[c])?;
    }
    let devices = [
        Some(x.device()),
        weight.map(|w| w.device()),
        bias.map(|b| b.device()),
        Some(out.device()),
    ]
    .into_iter()
    .flatten();
    let after = After::Affine { weight, bias };
    match one_device(OP, devices)? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::layer_norm(OP, x, after, eps, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::layer_norm(OP, x, after, eps, out)),
    }
}

/// LayerNorm(x)·(1 + scale) + shift: adaptive layer norm (Peebles and Xie, arXiv:2212.09748, section 3.2).
///
/// # Shapes
/// x is `[b, l, c]`; shift and scale, of any dtype, are `[b, c]`.
///
/// # Errors
/// If shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, norm::layer_norm_modulate};
/// let device = &Device::cpu();
/// let (x, shift, scale) = ([1f32, 3.], [10f32, 20.], [0f32, 1.]);
/// let row = |x| View::from_slice(x, [1, 2], device);
/// let y = layer_norm_modulate(View::from_slice(&x, [1, 1, 2], device)?, row(&shift)?, row(&scale)?, 0.0)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [9., 22.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn layer_norm_modulate<'a, 'b, 'c>(
    x: impl Into<View<'a>>,
    shift: impl Into<View<'b>>,
    scale: impl Into<View<'c>>,
    eps: f32,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `layer_norm_modulate_into` writes every element.
    let mut out =
        unsafe { TensorMut::uninit("layer_norm_modulate", x.shape(), x.dtype(), x.device())? };
    layer_norm_modulate_into(x, shift, scale, eps, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`layer_norm_modulate`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out`'s dtype differs from x's.
pub fn layer_norm_modulate_into<'a, 'b, 'c>(
    x: impl Into<View<'a>>,
    shift: impl Into<View<'b>>,
    scale: impl Into<View<'c>>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "layer_norm_modulate";
    let x = x.into();
    let &[b, l, c] = x.shape() else {
        return Err(Error::shape(OP, "x of shape [b, l, c]", x));
    };
    let _span = tracing::trace_span!("layer_norm_modulate", b, l, c).entered();
    expect_rows(OP, &out, x.shape(), x.dtype())?;
    let (shift, scale) = (shift.into(), scale.into());
    for parameter in [&shift, &scale] {
        expect_parameter(OP, parameter, &[b, c])?;
    }
    let devices = [x.device(), shift.device(), scale.device(), out.device()];
    let after = After::Modulate { shift, scale };
    match one_device(OP, devices)? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::layer_norm(OP, x, after, eps, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::layer_norm(OP, x, after, eps, out)),
    }
}

/// LayerNorm(x)·weight + shift, where the shift is each batch entry's own: HunyuanDiT's `AdaLayerNormShift` (diffusers
/// `models/transformers/hunyuan_transformer_2d.py`), the norm's bias added to the shift.
///
/// # Shapes
/// x is `[b, l, c]`; weight, of any dtype, is `[c]`; shift, of any dtype, is `[b, c]`.
///
/// # Errors
/// If shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, norm::layer_norm_shift};
/// let device = &Device::cpu();
/// let (x, weight, shift) = ([1f32, 3.], [2f32, 5.], [10f32, 20.]);
/// let x = View::from_slice(&x, [1, 1, 2], device)?;
/// let y = layer_norm_shift(x, View::from_slice(&weight, [2], device)?, View::from_slice(&shift, [1, 2], device)?, 0.0)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [8., 25.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn layer_norm_shift<'a, 'b, 'c>(
    x: impl Into<View<'a>>,
    weight: impl Into<View<'b>>,
    shift: impl Into<View<'c>>,
    eps: f32,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `layer_norm_shift_into` writes every element.
    let mut out =
        unsafe { TensorMut::uninit("layer_norm_shift", x.shape(), x.dtype(), x.device())? };
    layer_norm_shift_into(x, weight, shift, eps, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`layer_norm_shift`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out`'s dtype differs from x's.
pub fn layer_norm_shift_into<'a, 'b, 'c>(
    x: impl Into<View<'a>>,
    weight: impl Into<View<'b>>,
    shift: impl Into<View<'c>>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "layer_norm_shift";
    let x = x.into();
    let &[b, l, c] = x.shape() else {
        return Err(Error::shape(OP, "x of shape [b, l, c]", x));
    };
    let _span = tracing::trace_span!("layer_norm_shift", b, l, c).entered();
    expect_rows(OP, &out, x.shape(), x.dtype())?;
    let (weight, shift) = (weight.into(), shift.into());
    expect_parameter(OP, &weight, &[c])?;
    expect_parameter(OP, &shift, &[b, c])?;
    let devices = [x.device(), weight.device(), shift.device(), out.device()];
    let after = After::Shift { weight, shift };
    match one_device(OP, devices)? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::layer_norm(OP, x, after, eps, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::layer_norm(OP, x, after, eps, out)),
    }
}

/// x / √(mean of x² + eps), times weight; in x's dtype (Zhang and Sennrich, arXiv:1910.07467). T5's layer norm is this.
///
/// # Shapes
/// x is `[.., c]`; weight, of any dtype, is `[c]` (left out: 1).
///
/// # Errors
/// If the weight is not `[c]` or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, norm::rms_norm};
/// let device = &Device::cpu();
/// let x = [1f32, 7., -10., 10.];
/// let y = rms_norm(View::from_slice(&x, [2, 2], device)?, None, 0.0)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [0.2, 1.4, -1., 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn rms_norm<'a>(x: impl Into<View<'a>>, weight: Option<View<'_>>, eps: f32) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `rms_norm_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("rms_norm", x.shape(), x.dtype(), x.device())? };
    rms_norm_into(x, weight, eps, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`rms_norm`] returns into `out`.
///
/// # Errors
/// If the weight is not `[c]`, or `out` differs from x in shape or dtype.
pub fn rms_norm_into<'a>(
    x: impl Into<View<'a>>,
    weight: Option<View<'_>>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "rms_norm";
    let x = x.into();
    let c = last_dim(OP, &x)?;
    let _span = tracing::trace_span!("rms_norm", n = x.numel(), c).entered();
    expect_rows(OP, &out, x.shape(), x.dtype())?;
    if let Some(weight) = &weight {
        expect_parameter(OP, weight, &[c])?;
    }
    let devices = [
        Some(x.device()),
        weight.map(|w| w.device()),
        Some(out.device()),
    ]
    .into_iter()
    .flatten();
    match one_device(OP, devices)? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::rms_norm(x, weight, eps, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::rms_norm(OP, x, weight, eps, out)),
    }
}
