//! Rows of a table picked by ids.

#[cfg(test)]
mod tests;

use crate::{Error, Result, Tensor, TensorMut, View, ViewMut, layout};

/// Row `ids[i]` of the table as row i, in the table's dtype.
///
/// # Shapes
/// table is `[n, c]`; the result `[ids.len(), c]`.
///
/// # Errors
/// If an id is not below n or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{View, embedding::embedding};
/// let table = [0f32, 1., 10., 11., 20., 21.];
/// let rows = embedding(View::from_slice(&table, [3, 2])?, &[2, 0])?;
/// assert_eq!(rows.to_f32_vec(), [20., 21., 0., 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn embedding<'a>(table: impl Into<View<'a>>, ids: &[u32]) -> Result<Tensor> {
    let table = table.into();
    let &[_, c] = table.shape() else {
        return Err(Error::shape("embedding", "a table of shape [n, c]", table));
    };
    // SAFETY: `embedding_into` writes every row.
    let mut out =
        unsafe { TensorMut::uninit("embedding", [ids.len(), c], table.dtype(), table.device())? };
    embedding_into(table, ids, out.view_mut())?;
    Ok(out.freeze())
}

/// [`embedding`] into memory that is there.
///
/// # Errors
/// If an id is not below n, or `out` is not `[ids.len(), c]` in the table's dtype.
pub fn embedding_into<'a>(
    table: impl Into<View<'a>>,
    ids: &[u32],
    mut out: ViewMut<'_>,
) -> Result<()> {
    let table = table.into();
    let &[n, c] = table.shape() else {
        return Err(Error::shape("embedding", "a table of shape [n, c]", table));
    };
    let _span = tracing::trace_span!("embedding", ids = ids.len(), n, c).entered();
    out.expect("embedding", &[ids.len(), c], table.dtype())?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= n) {
        return Err(Error::shape("embedding", format!("ids below {n}"), id));
    }
    for (i, &id) in ids.iter().enumerate() {
        let row = out.reborrow().narrow(0, i, 1)?;
        layout::copy_into(table.narrow(0, id as usize, 1)?, row)?;
    }
    Ok(())
}
