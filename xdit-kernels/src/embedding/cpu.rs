//! Reads the ids, then copies rows.

use crate::{Error, Result, View, ViewMut, layout, vector::reserved};

/// Shapes and dtypes are checked by the caller.
pub(super) fn embedding(
    op: &'static str,
    table: View<'_>,
    ids: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let n = table.dim(0);
    // Each is read once: those of a mapped file may change between a check and a use.
    let mut rows: Vec<u32> = reserved(op, ids.numel())?;
    let (first, step) = (ids.ptr().cast::<u32>(), ids.strides()[0]);
    // SAFETY: the view reaches every index below its dim.
    rows.extend((0..ids.numel()).map(|i| unsafe { first.add(i * step).read() }));
    if let Some(id) = rows.iter().find(|&&id| id as usize >= n) {
        return Err(Error::shape(op, format!("ids below {n}"), id));
    }
    for (i, &id) in rows.iter().enumerate() {
        let row = out.reborrow().narrow(0, i, 1)?;
        layout::copy_into(table.narrow(0, id as usize, 1)?, row)?;
    }
    Ok(())
}
