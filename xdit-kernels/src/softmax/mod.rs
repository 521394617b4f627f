//! Softmax over the last dim.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{
    DeviceKind, Result, Tensor, TensorMut, View, ViewMut,
    dispatch::{expect_rows, one_device},
};

/// e^x over its sum along the last dim, in x's dtype; the row's maximum is subtracted first, so nothing overflows.
///
/// −∞ gives 0; a row of nothing but −∞, or with NaN or +∞ in it, gives NaN, as torch's does.
///
/// # Shapes
/// x is `[.., c]`.
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, softmax::softmax};
/// let device = &Device::cpu();
/// let x = [1000f32, 1000., 5., f32::NEG_INFINITY];
/// let y = softmax(View::from_slice(&x, [2, 2], device)?)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn softmax<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `softmax_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("softmax", x.shape(), x.dtype(), x.device())? };
    softmax_into(x, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`softmax`] returns into `out`.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn softmax_into<'a>(x: impl Into<View<'a>>, out: ViewMut<'_>) -> Result<()> {
    let x = x.into();
    let _span = tracing::trace_span!("softmax", n = x.numel()).entered();
    expect_rows("softmax", &out, x.shape(), x.dtype())?;
    match one_device("softmax", [x.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::softmax(x, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::softmax("softmax", x, out)),
    }
}
