//! Copies that change where elements lie or their dtype: contiguous, cat, cast.

#[cfg(feature = "cuda")]
mod batch;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod plan;
#[cfg(test)]
mod tests;

use crate::{
    DType, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device,
};

const OP: &str = "copy";

/// The view's elements, contiguous.
///
/// # Errors
/// If there is no memory.
pub fn contiguous<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    let x = x.into();
    cast(x, x.dtype())
}

/// The view's elements in another dtype, contiguous: from one float to another (rounded to nearest even), from u8 to a float,
/// or from a float to u8 (towards zero, at most 255; NaN becomes 0).
///
/// # Errors
/// If there is no memory, or there is no such conversion.
pub fn cast<'a>(x: impl Into<View<'a>>, dtype: DType) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `copy_into` writes every element of its output.
    let mut out = unsafe { TensorMut::uninit("cast", x.shape(), dtype, x.device())? };
    copy_into(x, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes the view's elements into `out`, converting the dtype as [`cast`] does.
///
/// # Errors
/// If the shapes differ, or there is no such conversion.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, TensorMut, View, layout};
/// let device = Device::cpu();
/// let mut joint = TensorMut::zeros([3, 2], DType::F32, &device)?;
/// let row = [5f32, 6.];
/// let row = View::from_slice(&row, [1, 2], &device)?;
/// layout::copy_into(row, joint.view_mut().narrow(0, 2, 1)?)?;
/// assert_eq!(joint.freeze().to_vec_blocking::<f32>()?, [0., 0., 0., 0., 5., 6.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn copy_into<'a>(x: impl Into<View<'a>>, out: ViewMut<'_>) -> Result<()> {
    let x = x.into();
    if x.shape() != out.shape() {
        return Err(Error::shape(OP, format!("{:?}", out.shape()), x));
    }
    match one_device(OP, [x.device(), out.device()])? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::copy(OP, x, out)),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => out.written_by(|out| cuda::copy(OP, x, out)),
    }
}

/// Writes each view into its output, as [`copy_into`] does. A GPU makes up to 56 copies in one launch, of any
/// dtypes, if they convert and transpose nothing.
///
/// # Errors
/// As [`copy_into`]'s, or if two operands are not on one device. Then any of the outputs may have been written.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor, TensorMut, layout};
/// let device = Device::cpu();
/// let (x, y) = (Tensor::from_slice(&[1f32, 2.], [2], &device)?, Tensor::from_slice(&[3f32], [1], &device)?);
/// let mut both = TensorMut::unfilled([3], DType::F32, &device)?;
/// let places = both.parts([[(0, 1, 2)], [(0, 0, 1)]])?;
/// layout::copy_each([x.view(), y.view()].into_iter().zip(places).collect())?;
/// assert_eq!(both.freeze()?.to_vec_blocking::<f32>()?, [3., 1., 2.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn copy_each<'a>(copies: Vec<(View<'a>, ViewMut<'a>)>) -> Result<()> {
    if copies.is_empty() {
        return Ok(());
    }
    for (x, out) in &copies {
        if x.shape() != out.shape() {
            return Err(Error::shape(OP, format!("{:?}", out.shape()), x));
        }
    }
    let devices = copies
        .iter()
        .flat_map(|(x, out)| [x.device(), out.device()]);
    match one_device(OP, devices)? {
        DeviceKind::Cpu(_) => copies
            .into_iter()
            .try_for_each(|(x, out)| out.written_by(|out| cpu::copy(OP, x, out))),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            let (xs, outs): (Vec<_>, Vec<_>) = copies.into_iter().unzip();
            ViewMut::each_written_by(outs, |outs| batch::copy_each(OP, &xs, outs))
        }
    }
}

/// The parts one after another along `dim`.
///
/// # Errors
/// If there is no part, they differ in another dim or in dtype, or are not on one device.
pub fn cat(parts: &[View<'_>], dim: usize) -> Result<Tensor> {
    match parts.iter().find(|part| part.dtype() != parts[0].dtype()) {
        Some(_) => Err(not_beside(parts, dim)),
        None => cat_as(parts, dim, parts.first().map_or(DType::F32, View::dtype)),
    }
}

fn not_beside(parts: &[View<'_>], dim: usize) -> Error {
    let expected = format!("parts of one dtype that differ in dim {dim} at most");
    Error::shape("cat", expected, parts)
}

/// As [`cat`], of parts of any dtypes, in `dtype`.
pub(crate) fn cat_as(parts: &[View<'_>], dim: usize, dtype: DType) -> Result<Tensor> {
    let wrong = || not_beside(parts, dim);
    let first = parts.first().ok_or_else(wrong)?;
    let mut shape = first.shape().to_vec();
    if dim >= shape.len() {
        return Err(wrong());
    }
    shape[dim] = 0;
    for part in parts {
        let fits = part.ndim() == shape.len()
            && (0..shape.len()).all(|d| d == dim || part.dim(d) == shape[d]);
        if !fits {
            return Err(wrong());
        }
        shape[dim] = shape[dim].checked_add(part.dim(dim)).ok_or_else(wrong)?;
    }
    one_device("cat", parts.iter().map(View::device))?;
    let mut out = TensorMut::unfilled_for("cat", shape.as_slice(), dtype, first.device())?;
    let mut start = 0;
    let places = parts.iter().map(|part| {
        start += part.dim(dim);
        [(dim, start - part.dim(dim), part.dim(dim))]
    });
    let places = out.parts(places)?;
    copy_each(parts.iter().copied().zip(places).collect())?;
    out.freeze()
}
