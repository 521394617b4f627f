//! The checks and the dispatch line in which the operations on pairs and on single elements end.

#[cfg(feature = "cuda")]
use super::cuda;
use super::{combine::Combine, cpu};
use crate::{
    DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut,
    dispatch::{expect_rows, one_device},
};

/// `combine` of each pair of elements of x and y, in x's dtype and shape. y has that shape or its last dims.
pub(super) fn binary(
    op: &'static str,
    x: View<'_>,
    y: View<'_>,
    combine: Combine,
) -> Result<Tensor> {
    // SAFETY: `binary_into` writes every element.
    let mut out = unsafe { TensorMut::uninit(op, x.shape(), x.dtype(), x.device())? };
    binary_into(op, x, y, combine, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`binary`] returns into `out`.
pub(super) fn binary_into(
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
    y.dtype().float(op)?;
    match one_device(op, [x.device(), y.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::binary(x, y, combine, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::combine(op, x, Some(y), combine, out)),
    }
}

/// `combine` of each element of x, in x's dtype and shape.
pub(super) fn unary(op: &'static str, x: View<'_>, combine: Combine) -> Result<Tensor> {
    // SAFETY: `unary_into` writes every element.
    let mut out = unsafe { TensorMut::uninit(op, x.shape(), x.dtype(), x.device())? };
    unary_into(op, x, combine, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`unary`] returns into `out`.
pub(super) fn unary_into(
    op: &'static str,
    x: View<'_>,
    combine: Combine,
    out: ViewMut<'_>,
) -> Result<()> {
    let _span = tracing::trace_span!("elementwise", op, n = x.numel()).entered();
    expect_rows(op, &out, x.shape(), x.dtype())?;
    match one_device(op, [x.device(), out.device()])? {
        // x twice: one loop serves all operations, and the second load comes from the cache.
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::binary(x, x, combine, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::combine(op, x, None, combine, out)),
    }
}
