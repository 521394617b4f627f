//! Activation functions, alone or times a second tensor (gated).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod function;
mod math;
#[cfg(test)]
mod tests;

pub use function::Activation;

use crate::{
    DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut,
    dispatch::{expect_rows, one_device},
};

/// `act(x)`, in x's dtype (computed in f32).
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, activation::{Activation, activation}};
/// let device = &Device::cpu();
/// let x = [-1f32, 0., 2.];
/// let y = activation(View::from_slice(&x, [3], device)?, Activation::Relu)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [0., 0., 2.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn activation<'a>(x: impl Into<View<'a>>, act: Activation) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `activation_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("activation", x.shape(), x.dtype(), x.device())? };
    activation_into(x, act, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`activation`] returns into `out`.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn activation_into<'a>(
    x: impl Into<View<'a>>,
    act: Activation,
    out: ViewMut<'_>,
) -> Result<()> {
    let x = x.into();
    let _span = tracing::trace_span!("activation", ?act, n = x.numel()).entered();
    expect_rows("activation", &out, x.shape(), x.dtype())?;
    match one_device("activation", [x.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::activation(x, act, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            out.written_by(|out| cuda::activation("activation", x, None, act, out))
        }
    }
}

/// `act(x)·y`, in x's dtype (computed in f32): the gated units of Shazeer, arXiv:2002.05202.
///
/// # Shapes
/// x and y have the same shape. A y of another dtype than x is converted to it first.
///
/// # Errors
/// If the shapes differ or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, activation::{Activation, gated}};
/// let device = &Device::cpu();
/// let (x, y) = ([-1f32, 3.], [5f32, 7.]);
/// let out = gated(View::from_slice(&x, [2], device)?, View::from_slice(&y, [2], device)?, Activation::Relu)?;
/// assert_eq!(out.to_vec_blocking::<f32>()?, [0., 21.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn gated<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    act: Activation,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `gated_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("gated", x.shape(), x.dtype(), x.device())? };
    gated_into(x, y, act, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`gated`] returns into `out`.
///
/// # Errors
/// If the shapes differ, or `out`'s dtype from x's.
pub fn gated_into<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    act: Activation,
    out: ViewMut<'_>,
) -> Result<()> {
    let (x, y) = (x.into(), y.into());
    let _span = tracing::trace_span!("gated", ?act, n = x.numel()).entered();
    if x.shape() != y.shape() {
        return Err(Error::shape(
            "gated",
            format!("y of shape {:?}", x.shape()),
            y,
        ));
    }
    expect_rows("gated", &out, x.shape(), x.dtype())?;
    y.dtype().float("gated")?;
    match one_device("gated", [x.device(), y.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::gated(x, y, act, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            out.written_by(|out| cuda::activation("gated", x, Some(y), act, out))
        }
    }
}
