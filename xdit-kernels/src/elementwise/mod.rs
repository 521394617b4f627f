//! Arithmetic element by element: gate and residual, sums, products, and the terms of schedulers' updates.
//!
//! Computed in f32 and rounded once, whatever the dtypes.

mod call;
mod combine;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod scalars;
#[cfg(test)]
mod tests;

use crate::{
    DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut,
    dispatch::{expect_parameter, expect_rows, one_device},
};
use call::{binary, binary_into};
use combine::Combine;
pub use scalars::{
    add_scaled, add_scaled_into, clamp, clamp_into, divide, divide_into, scale, scale_into,
    scale_shift, scale_shift_into, weighted_sum, weighted_sum_into,
};

/// `x + y`, in x's dtype.
///
/// # Shapes
/// y has x's shape, or x's last dims and is then added to each entry of the first ones.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::add};
/// let device = &Device::cpu();
/// let (x, y) = ([1f32, 2., 3., 4.], [10f32, 20.]);
/// let z = add(View::from_slice(&x, [2, 2], device)?, View::from_slice(&y, [2], device)?)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [11., 22., 13., 24.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn add<'a, 'b>(x: impl Into<View<'a>>, y: impl Into<View<'b>>) -> Result<Tensor> {
    binary("add", x.into(), y.into(), Combine::Add)
}

/// Writes what [`add`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out` differs from x in shape or dtype.
pub fn add_into<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    out: ViewMut<'_>,
) -> Result<()> {
    binary_into("add", x.into(), y.into(), Combine::Add, out)
}

/// `x − y`, in x's dtype; shapes as [`add`]'s.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::sub};
/// let device = &Device::cpu();
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = sub(View::from_slice(&x, [2], device)?, View::from_slice(&y, [2], device)?)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [-9., -18.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn sub<'a, 'b>(x: impl Into<View<'a>>, y: impl Into<View<'b>>) -> Result<Tensor> {
    binary("sub", x.into(), y.into(), Combine::Sub)
}

/// Writes what [`sub`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out` differs from x in shape or dtype.
pub fn sub_into<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    out: ViewMut<'_>,
) -> Result<()> {
    binary_into("sub", x.into(), y.into(), Combine::Sub, out)
}

/// `x · y`, in x's dtype; shapes as [`add`]'s.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::mul};
/// let device = &Device::cpu();
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = mul(View::from_slice(&x, [2], device)?, View::from_slice(&y, [2], device)?)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [10., 40.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn mul<'a, 'b>(x: impl Into<View<'a>>, y: impl Into<View<'b>>) -> Result<Tensor> {
    binary("mul", x.into(), y.into(), Combine::Mul)
}

/// Writes what [`mul`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out` differs from x in shape or dtype.
pub fn mul_into<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    out: ViewMut<'_>,
) -> Result<()> {
    binary_into("mul", x.into(), y.into(), Combine::Mul, out)
}

/// `residual + gate·x`, in the residual's dtype: the end of each branch of a transformer block.
///
/// # Shapes
/// x and residual are `[b, l, c]`; the gate, of any dtype, is `[b, c]`.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::gate_residual};
/// let device = &Device::cpu();
/// let (x, gate, residual) = ([1f32, 2., 3., 4.], [10f32, 0.], [5f32; 4]);
/// let token = |x| View::from_slice(x, [1, 2, 2], device);
/// let y = gate_residual(token(&x)?, View::from_slice(&gate, [1, 2], device)?, token(&residual)?)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [15., 5., 35., 5.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn gate_residual<'a, 'b, 'c>(
    x: impl Into<View<'a>>,
    gate: impl Into<View<'b>>,
    residual: impl Into<View<'c>>,
) -> Result<Tensor> {
    let residual = residual.into();
    // SAFETY: `gate_residual_into` writes every element.
    let mut out = unsafe {
        TensorMut::uninit(
            "gate_residual",
            residual.shape(),
            residual.dtype(),
            residual.device(),
        )?
    };
    gate_residual_into(x, gate, residual, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`gate_residual`] returns into `out`.
///
/// # Errors
/// If the shapes do not fit, or `out` differs from the residual in shape or dtype.
pub fn gate_residual_into<'a, 'b, 'c>(
    x: impl Into<View<'a>>,
    gate: impl Into<View<'b>>,
    residual: impl Into<View<'c>>,
    out: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "gate_residual";
    let (x, residual) = (x.into(), residual.into());
    let &[b, l, c] = residual.shape() else {
        return Err(Error::shape(OP, "a residual of shape [b, l, c]", residual));
    };
    let _span = tracing::trace_span!("gate_residual", b, l, c).entered();
    if x.shape() != residual.shape() {
        return Err(Error::shape(OP, format!("x of shape {:?}", [b, l, c]), x));
    }
    expect_rows(OP, &out, residual.shape(), residual.dtype())?;
    x.dtype().float(OP)?;
    let gate = gate.into();
    expect_parameter(OP, &gate, &[b, c])?;
    let operands = [x.device(), gate.device(), residual.device(), out.device()];
    match one_device(OP, operands)? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::gate_residual(x, gate, residual, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            out.written_by(|out| cuda::gate_residual(OP, x, gate, residual, out))
        }
    }
}
