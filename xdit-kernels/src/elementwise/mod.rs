//! Arithmetic element by element: gate and residual, sums, products, a scheduler's update.
//!
//! Computed in f32 and rounded once, whatever the dtypes.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{
    DType, Error, Result, Tensor, TensorMut, View, ViewMut, layout,
    rows::{Floats, Operand, expect_rows},
};
use cpu::Combine;

fn binary(op: &'static str, x: View<'_>, y: View<'_>, combine: Combine) -> Result<Tensor> {
    // SAFETY: `binary_into` writes every element.
    let mut out = unsafe { TensorMut::uninit(op, x.shape(), x.dtype(), x.device())? };
    binary_into(op, x, y, combine, out.view_mut())?;
    Ok(out.freeze())
}

fn binary_into(
    op: &'static str,
    x: View<'_>,
    y: View<'_>,
    combine: Combine,
    out: ViewMut<'_>,
) -> Result<()> {
    let _span = tracing::trace_span!("elementwise", op, n = x.numel()).entered();
    if !x.shape().ends_with(y.shape()) || (y.ndim() == 0 && x.ndim() > 0) {
        return Err(Error::shape(
            op,
            format!("y of shape {:?} or its last dims", x.shape()),
            y,
        ));
    }
    expect_rows(op, &out, x.shape(), x.dtype())?;
    if x.dtype() != y.dtype() {
        let wide = layout::cast(x, DType::F32)?;
        let y = layout::cast(y, DType::F32)?;
        return layout::copy_into(&binary(op, wide.view(), y.view(), combine)?, out);
    }
    let (x, y) = (Operand::new(x, x.dtype())?, Operand::new(y, x.dtype())?);
    cpu::binary(x.view(), y.view(), combine, out)
}

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
/// let (x, y) = ([1f32, 2., 3., 4.], [10f32, 20.]);
/// let z = add(View::from_slice(&x, [2, 2], &Device::cpu())?, View::from_slice(&y, [2], &Device::cpu())?)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [11., 22., 13., 24.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn add<'a, 'b>(x: impl Into<View<'a>>, y: impl Into<View<'b>>) -> Result<Tensor> {
    binary("add", x.into(), y.into(), Combine::Add)
}

/// [`add`] into memory that is there.
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
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = sub(View::from_slice(&x, [2], &Device::cpu())?, View::from_slice(&y, [2], &Device::cpu())?)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [-9., -18.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn sub<'a, 'b>(x: impl Into<View<'a>>, y: impl Into<View<'b>>) -> Result<Tensor> {
    binary("sub", x.into(), y.into(), Combine::Sub)
}

/// [`sub`] into memory that is there.
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
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = mul(View::from_slice(&x, [2], &Device::cpu())?, View::from_slice(&y, [2], &Device::cpu())?)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [10., 40.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn mul<'a, 'b>(x: impl Into<View<'a>>, y: impl Into<View<'b>>) -> Result<Tensor> {
    binary("mul", x.into(), y.into(), Combine::Mul)
}

/// [`mul`] into memory that is there.
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

/// `x + a·y`, in x's dtype: an Euler scheduler's step. The product is rounded to f32 before the sum, as torch does.
///
/// # Shapes
/// As [`add`]'s.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::add_scaled};
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = add_scaled(View::from_slice(&x, [2], &Device::cpu())?, View::from_slice(&y, [2], &Device::cpu())?, -0.5)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [-4., -8.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn add_scaled<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    a: f32,
) -> Result<Tensor> {
    binary("add_scaled", x.into(), y.into(), Combine::AddScaled(a))
}

/// [`add_scaled`] into memory that is there.
///
/// # Errors
/// If shapes do not fit, or `out` differs from x in shape or dtype.
pub fn add_scaled_into<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    a: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    binary_into("add_scaled", x.into(), y.into(), Combine::AddScaled(a), out)
}

/// `a · x`, in x's dtype.
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::scale};
/// let x = [1f32, 2.];
/// assert_eq!(scale(View::from_slice(&x, [2], &Device::cpu())?, 3.0)?.to_vec_blocking::<f32>()?, [3., 6.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn scale<'a>(x: impl Into<View<'a>>, a: f32) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `scale_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("scale", x.shape(), x.dtype(), x.device())? };
    scale_into(x, a, out.view_mut())?;
    Ok(out.freeze())
}

/// [`scale`] into memory that is there.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn scale_into<'a>(x: impl Into<View<'a>>, a: f32, out: ViewMut<'_>) -> Result<()> {
    let x = x.into();
    let _span = tracing::trace_span!("elementwise", op = "scale", n = x.numel()).entered();
    expect_rows("scale", &out, x.shape(), x.dtype())?;
    let x = Operand::new(x, x.dtype())?;
    // x twice: one loop serves all of these, and the second load comes from the cache.
    cpu::binary(x.view(), x.view(), Combine::Scale(a), out)
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
/// let (x, gate, residual) = ([1f32, 2., 3., 4.], [10f32, 0.], [5f32; 4]);
/// let token = |x| View::from_slice(x, [1, 2, 2], &Device::cpu());
/// let y = gate_residual(token(&x)?, View::from_slice(&gate, [1, 2], &Device::cpu())?, token(&residual)?)?;
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

/// [`gate_residual`] into memory that is there.
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
    let gate = Floats::new(OP, gate.into(), &[b, c])?;
    if x.dtype() != residual.dtype() {
        let wide = [
            layout::cast(x, DType::F32)?,
            layout::cast(residual, DType::F32)?,
        ];
        let mut sum = TensorMut::zeros([b, l, c], DType::F32, residual.device())?;
        cpu::gate_residual(wide[0].view(), &gate, wide[1].view(), sum.view_mut())?;
        return layout::copy_into(&sum.freeze(), out);
    }
    let (x, residual) = (
        Operand::new(x, x.dtype())?,
        Operand::new(residual, residual.dtype())?,
    );
    cpu::gate_residual(x.view(), &gate, residual.view(), out)
}
