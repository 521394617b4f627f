//! Computes some rows of the result of a convolution.

use super::{Conv2d, OP};
use crate::{Error, Result, Tensor, TensorMut, View, ViewMut};
use std::ops::Range;

impl Conv2d {
    /// Rows `rows` of the result of [`forward_with`](Self::forward_with). No other row is computed. A rank that holds a band of
    /// a picture, with the few rows beside it that the kernel reaches, computes the rows of its band.
    ///
    /// # Shapes
    /// `x` `[b, h, w, ic]`; `residual` and the result `[b, rows.len(), …, oc]`. Rows count from the top of the whole result,
    /// whose padding is that of the options.
    ///
    /// # Errors
    /// As [`forward_with`](Self::forward_with); also if the result lacks one of the rows. An empty range is allowed for every
    /// `x`, even one without rows.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::conv2d::{Conv2d, Conv2dOptions, Padding};
    /// use xdit_kernels::{DType, Device, Tensor};
    /// let weight = Tensor::from_slice(&[1f32; 9], [1, 1, 3, 3], &Device::cpu())?;
    /// let options = Conv2dOptions { padding: Padding::all(1), ..Conv2dOptions::default() };
    /// let conv = Conv2d::pack(&weight, None, options, DType::F32, &Device::cpu())?;
    /// let x = Tensor::from_slice(&[1f32; 9], [1, 3, 3, 1], &Device::cpu())?;
    /// let y = conv.forward_rows(&x, None, 1..2)?.to_vec_blocking::<f32>()?;
    /// assert!(y.iter().zip([6., 9., 6.]).all(|(a, b)| (a - b).abs() < 1e-5));
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn forward_rows<'a>(
        &self,
        x: impl Into<View<'a>>,
        residual: Option<View<'_>>,
        rows: Range<usize>,
    ) -> Result<Tensor> {
        let x = x.into();
        let shape = self.rows_shape(&x, &rows)?;
        // SAFETY: `window` writes every element of its output.
        let mut out = unsafe { TensorMut::uninit(OP, shape, x.dtype(), x.device())? };
        self.window(x, residual, rows.start, shape, out.view_mut())?;
        Ok(out.freeze())
    }

    /// Writes the result of [`forward_rows`](Self::forward_rows) into `out`. Several calls give the bytes of one call if each but
    /// the last computes a multiple of 8 rows.
    ///
    /// # Errors
    /// As [`forward_rows`](Self::forward_rows); also if `out` has another shape or dtype, its channels are not adjacent, or it
    /// is on another device.
    pub fn forward_rows_into<'a>(
        &self,
        x: impl Into<View<'a>>,
        residual: Option<View<'_>>,
        rows: Range<usize>,
        out: ViewMut<'_>,
    ) -> Result<()> {
        let x = x.into();
        let shape = self.rows_shape(&x, &rows)?;
        self.window(x, residual, rows.start, shape, out)
    }

    /// The shape of these rows of the result for `x`, if the result has them.
    fn rows_shape(&self, x: &View<'_>, rows: &Range<usize>) -> Result<[usize; 4]> {
        let shape = match (rows.is_empty(), x.shape()) {
            // An input with as many rows as the kernel has a result, of which no row is taken.
            (true, &[b, _, w, c]) => self.output_shape(x, &[b, self.shape[2], w, c])?,
            _ => self.output_shape(x, x.shape())?,
        };
        if !rows.is_empty() && rows.end > shape[1] {
            return Err(Error::shape(
                OP,
                format!("rows of {} in all", shape[1]),
                rows,
            ));
        }
        Ok([shape[0], rows.len(), shape[2], shape[3]])
    }
}
