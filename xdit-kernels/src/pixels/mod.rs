//! Images as bytes.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{
    DType, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device,
};

const OP: &str = "rgb8";

/// Planes with values in [0, 1] as interleaved bytes: times 255, rounded half to even. What is above 1 becomes 255, what is below 0,
/// or NaN, becomes 0.
///
/// # Shapes
/// planes is `[b, 3, h, w]`; the result `[b, h, w, 3]` of u8.
///
/// # Errors
/// If the shape is another one, the dtype is not a float, or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, pixels::rgb8};
/// let planes = Tensor::from_slice(&[0f32, 0.5, 1.0], [1, 3, 1, 1], &Device::cpu())?;
/// assert_eq!(rgb8(&planes)?.to_vec_blocking::<u8>()?, [0, 128, 255]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn rgb8<'a>(planes: impl Into<View<'a>>) -> Result<Tensor> {
    let planes = planes.into();
    let shape = output_shape(&planes)?;
    // SAFETY: `rgb8_into` writes every byte.
    let mut out = unsafe { TensorMut::uninit(OP, shape, DType::U8, planes.device())? };
    rgb8_into(planes, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`rgb8`] returns into `out`.
///
/// # Errors
/// As [`rgb8`]'s, or if `out` is not contiguous `[b, h, w, 3]` of u8.
pub fn rgb8_into<'a>(planes: impl Into<View<'a>>, out: ViewMut<'_>) -> Result<()> {
    let planes = planes.into();
    let shape = output_shape(&planes)?;
    out.expect(OP, &shape, DType::U8)?;
    if !out.is_contiguous() {
        return Err(Error::shape(OP, "a contiguous output", &out));
    }
    let [b, h, w, _] = shape;
    let _span = tracing::trace_span!("rgb8", b, h, w).entered();
    match one_device(OP, [planes.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::rgb8(OP, planes, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::rgb8(OP, planes, out)),
    }
}

fn output_shape(planes: &View<'_>) -> Result<[usize; 4]> {
    let &[b, 3, h, w] = planes.shape() else {
        return Err(Error::shape(OP, "planes [b, 3, h, w]", planes));
    };
    planes.dtype().float(OP)?;
    Ok([b, h, w, 3])
}
