//! Rows of a table picked by ids.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{
    DType, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device,
};

const OP: &str = "embedding";

/// Row `ids[i]` of the table as row i, in the table's dtype, which may be any.
///
/// # Shapes
/// table is `[n, c]`, ids `[l]` of u32; the result `[l, c]`.
///
/// # Errors
/// If an id is not below n, the ids are not u32, or there is no memory. A GPU does not tell an id that is not below n: the row of
/// the result is then NaN, which the checks for finite results find.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, embedding::embedding};
/// let device = Device::cpu();
/// let table = Tensor::from_slice(&[0f32, 1., 10., 11., 20., 21.], [3, 2], &device)?;
/// let ids = Tensor::from_slice(&[2u32, 0], [2], &device)?;
/// assert_eq!(embedding(&table, &ids)?.to_vec_blocking::<f32>()?, [20., 21., 0., 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn embedding<'a, 'b>(table: impl Into<View<'a>>, ids: impl Into<View<'b>>) -> Result<Tensor> {
    let (table, ids) = (table.into(), ids.into());
    let shape = output_shape(&table, &ids)?;
    // SAFETY: `embedding_into` writes every row.
    let mut out = unsafe { TensorMut::uninit(OP, shape, table.dtype(), table.device())? };
    embedding_into(table, ids, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`embedding`] returns into `out`.
///
/// # Errors
/// As [`embedding`]'s, or if `out` is not `[l, c]` in the table's dtype.
pub fn embedding_into<'a, 'b>(
    table: impl Into<View<'a>>,
    ids: impl Into<View<'b>>,
    out: ViewMut<'_>,
) -> Result<()> {
    let (table, ids) = (table.into(), ids.into());
    let [l, c] = output_shape(&table, &ids)?;
    let _span = tracing::trace_span!("embedding", ids = l, n = table.dim(0), c).entered();
    out.expect(OP, &[l, c], table.dtype())?;
    match one_device(OP, [table.device(), ids.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::embedding(OP, table, ids, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::embedding(OP, table, ids, out)),
    }
}

fn output_shape(table: &View<'_>, ids: &View<'_>) -> Result<[usize; 2]> {
    let &[_, c] = table.shape() else {
        return Err(Error::shape(OP, "a table of shape [n, c]", table));
    };
    let &[l] = ids.shape() else {
        return Err(Error::shape(OP, "ids of shape [l]", ids));
    };
    if ids.dtype() != DType::U32 {
        return Err(Error::DType {
            op: OP,
            expected: "u32 ids".into(),
            got: ids.dtype(),
        });
    }
    Ok([l, c])
}
