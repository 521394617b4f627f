//! Vectors whose allocation can fail with an error.

use crate::{Error, Result};

/// An empty vector with room for `len` elements, so that pushing them allocates nothing more. It is meant for every vector
/// whose length grows with the size or the number of pictures.
///
/// # Errors
/// [`Error::OutOfMemory`], which names `op`, if there is no memory.
///
/// # Examples
/// ```
/// let mut squares = xdit_kernels::reserved("squares", 3)?;
/// squares.extend((1..=3).map(|i| i * i));
/// assert_eq!(squares, [1, 4, 9]);
/// assert!(xdit_kernels::reserved::<f32>("too many", usize::MAX).is_err());
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn reserved<T>(op: &'static str, len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    values
        .try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory { op, bytes })?;
    Ok(values)
}

/// A vector of `len` times `value`. Fails as [`reserved`] does.
pub(crate) fn filled<T: Clone>(op: &'static str, value: T, len: usize) -> Result<Vec<T>> {
    let mut all = reserved(op, len)?;
    all.resize(len, value);
    Ok(all)
}
