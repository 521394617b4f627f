//! Rows of embedding tables.

use xdit_kernels::{Tensor, embedding};

use crate::error::Result;

/// Returns the rows `ids` of a table `[n, c]`: `[ids.len(), c]`, on the device of the table.
pub(crate) fn rows_of(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let ids = Tensor::from_slice(ids, [ids.len()], table.device())?;
    Ok(embedding::embedding(table, &ids)?)
}
