//! Nearest-neighbour upsampling of channels-last pictures.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device};

/// What errors call this kernel.
const OP: &str = "upsample_nearest_2x";

/// The picture with each pixel repeated in a 2×2 square (torch's `interpolate(scale_factor=2, mode="nearest")`).
///
/// Where a convolution follows, [`Conv2dOptions::upsample`](crate::conv2d::Conv2dOptions::upsample) saves this copy.
///
/// # Shapes
/// `x` `[b, h, w, c]`; the result `[b, 2h, 2w, c]` in its dtype.
///
/// # Errors
/// If `x` does not have four dims, its dtype is not a float, or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, upsample::upsample_nearest_2x};
/// let x = Tensor::from_slice(&[1f32, 2.], [1, 1, 2, 1], &Device::cpu())?;
/// assert_eq!(upsample_nearest_2x(&x)?.to_vec_blocking::<f32>()?, [1., 1., 2., 2., 1., 1., 2., 2.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn upsample_nearest_2x<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    let x = x.into();
    let shape = output_shape(&x)?;
    // SAFETY: `upsample_nearest_2x_into` writes every element of its output.
    let mut out = unsafe { TensorMut::uninit(OP, shape, x.dtype(), x.device())? };
    upsample_nearest_2x_into(x, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`upsample_nearest_2x`] returns into `out`.
///
/// # Errors
/// As [`upsample_nearest_2x`], and if `out` has another shape or dtype.
pub fn upsample_nearest_2x_into<'a>(x: impl Into<View<'a>>, out: ViewMut<'_>) -> Result<()> {
    let x = x.into();
    let shape = output_shape(&x)?;
    out.expect(OP, &shape, x.dtype())?;
    let [b, h, w, c] = shape;
    let _span = tracing::trace_span!("upsample_nearest_2x", b, h, w, c).entered();
    match one_device(OP, [x.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::upsample(x, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::upsample(OP, x, out)),
    }
}

fn output_shape(x: &View<'_>) -> Result<[usize; 4]> {
    let &[b, h, w, c] = x.shape() else {
        return Err(Error::shape(OP, "an input [b, h, w, c]", x));
    };
    match (h.checked_mul(2), w.checked_mul(2)) {
        (Some(h), Some(w)) => Ok([b, h, w, c]),
        _ => Err(Error::shape(OP, "sizes that can be doubled", x)),
    }
}
