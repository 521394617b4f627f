//! Some rows of a convolution's result.

use super::Conv2d;
use crate::{Error, Result, Tensor, TensorMut, View, ViewMut};
use std::ops::Range;

impl Conv2d {
    /// Rows `rows` of [`forward_with`](Self::forward_with): what a rank computes that holds those rows of a picture's
    /// input and the few beside them that the kernel reaches. No other row is computed.
    ///
    /// # Shapes
    /// `x` `[b, h, w, ic]`; the result `[b, rows.len(), …, oc]`, and so `residual`. Rows count from the top of the whole
    /// result, padding as ever.
    ///
    /// # Errors
    /// As [`forward_with`](Self::forward_with), and if the result has no such rows. No rows are possible of any `x`, one
    /// without rows too.
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
        let mut out = unsafe { TensorMut::uninit("conv2d", shape, x.dtype(), x.device())? };
        self.window(x, residual, rows.start, shape, out.view_mut())?;
        Ok(out.freeze())
    }

    /// As [`forward_rows`](Self::forward_rows), into `out`: rows in several calls, if each but the last has a multiple of 8 of them,
    /// are the bytes of one.
    ///
    /// # Errors
    /// As [`forward_rows`](Self::forward_rows), and if `out` has another shape or dtype.
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

    /// The shape of these rows of the result for `x`, if it has them.
    fn rows_shape(&self, x: &View<'_>, rows: &Range<usize>) -> Result<[usize; 4]> {
        let shape = match (rows.is_empty(), x.shape()) {
            // As many rows as the kernel has give a result, of which none are taken.
            (true, &[b, _, w, c]) => self.output_shape(x, &[b, self.shape[2], w, c])?,
            _ => self.output_shape(x, x.shape())?,
        };
        if !rows.is_empty() && rows.end > shape[1] {
            return Err(Error::shape(
                "conv2d",
                format!("rows of {} in all", shape[1]),
                rows,
            ));
        }
        Ok([shape[0], rows.len(), shape[2], shape[3]])
    }
}
