//! Flash attention into given memory: over some keys, or over further ones.

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    cpu,
    dims::{Dims, OP},
    input::{AttnInput, AttnOut},
    sum::AttnSum,
};
use crate::{DType, DeviceKind, Result, TensorMut, ViewMut, merge::merge_in_place};

/// What [`Flash`](super::Flash) returns.
pub(super) fn attend(input: &AttnInput<'_>) -> Result<AttnOut> {
    let dims = Dims::of(input)?;
    let device = input.q.device();
    // SAFETY: `flash_into` writes every element of both outputs, or fails and they are dropped.
    let (mut out, mut lse) = unsafe {
        (
            TensorMut::uninit(OP, input.q.shape(), input.q.dtype(), device)?,
            TensorMut::uninit(OP, [dims.b, dims.h, dims.lq], DType::F32, device)?,
        )
    };
    flash_into(input, out.view_mut(), lse.view_mut())?;
    Ok(AttnOut {
        out: out.freeze(),
        lse: lse.freeze(),
    })
}

/// Writes what [`Flash`](super::Flash) returns into the caller's memory: `out` [b, lq, h, d] of q's dtype or of f32, `lse` [b, h, lq] f32.
///
/// The processor computes in q's dtype and widens the result where `out` is f32; a GPU does not round it first.
///
/// # Errors
/// If shapes or dtypes do not fit each other, or there is no memory for the packed keys and values.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, ViewMut, attention::{AttnInput, flash_into}};
/// let device = &Device::cpu();
/// let (q, k, v) = ([1f32], [1f32], [5f32]);
/// let shape = [1, 1, 1, 1];
/// let input = AttnInput::new(
///     View::from_slice(&q, shape, device)?,
///     View::from_slice(&k, shape, device)?,
///     View::from_slice(&v, shape, device)?,
/// );
/// let (mut out, mut lse) = ([0f32], [0f32]);
/// flash_into(
///     &input,
///     ViewMut::from_slice(&mut out, shape, device)?,
///     ViewMut::from_slice(&mut lse, [1, 1, 1], device)?,
/// )?;
/// assert_eq!((out, lse), ([5.], [1.]));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn flash_into(input: &AttnInput<'_>, out: ViewMut<'_>, lse: ViewMut<'_>) -> Result<()> {
    let dims = Dims::of(input)?;
    let kind = dims.expect_outputs(input, &out, &lse)?;
    let _span = span(&dims);
    match kind {
        DeviceKind::Cpu(_) => {
            lse.written_by(|lse| out.written_by(|out| cpu::flash(input, &dims, out, lse)))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            lse.written_by(|lse| out.written_by(|out| cuda::flash(input, &dims, out, lse, false)))
        }
    }
}

/// Adds the keys of `input` to attention of the same queries over other keys, which `out` [b, lq, h, d] and `lse` [b, h, lq] f32
/// hold. `out` is f32 or has q's dtype.
///
/// A GPU does this by one kernel, which rounds nothing but `out`. The processor computes the part as
/// [`flash_into`] does, in q's dtype, and merges it.
///
/// # Errors
/// If shapes or dtypes do not fit each other, or there is no memory for the part.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, ViewMut, attention::{AttnInput, flash_accumulate_into, flash_into}};
/// let device = &Device::cpu();
/// let (q, k, v) = ([0f32], [1f32, 2.], [10f32, 30.]);
/// let q = View::from_slice(&q, [1, 1, 1, 1], device)?;
/// let k = View::from_slice(&k, [1, 2, 1, 1], device)?;
/// let v = View::from_slice(&v, [1, 2, 1, 1], device)?;
/// let (mut out, mut lse) = ([0f32], [0f32]);
/// for (key, into) in [flash_into, flash_accumulate_into].into_iter().enumerate() {
///     let part = AttnInput::new(q, k.narrow(1, key, 1)?, v.narrow(1, key, 1)?);
///     let out = ViewMut::from_slice(&mut out, [1, 1, 1, 1], device)?;
///     into(&part, out, ViewMut::from_slice(&mut lse, [1, 1, 1], device)?)?;
/// }
/// assert_eq!((out, lse), ([20.], [2f32.ln()]));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn flash_accumulate_into(
    input: &AttnInput<'_>,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    let dims = Dims::of(input)?;
    let kind = dims.expect_outputs(input, &out, &lse)?;
    for output in [&out, &lse] {
        output.expect_initialised(OP)?;
    }
    match kind {
        DeviceKind::Cpu(_) => {
            let part = attend(input)?;
            merge_in_place(out, lse, &part)
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            let _span = span(&dims);
            lse.written_by(|lse| out.written_by(|out| cuda::flash(input, &dims, out, lse, true)))
        }
    }
}

/// Begins a sum, or goes on with it.
pub(super) fn accumulate(input: &AttnInput<'_>, sum: Option<AttnSum>) -> Result<AttnSum> {
    if let Some(mut sum) = sum {
        flash_accumulate_into(input, sum.out.view_mut(), sum.lse.view_mut())?;
        return Ok(sum);
    }
    let dims = Dims::of(input)?;
    let device = input.q.device();
    let mut out = TensorMut::unfilled_for(OP, input.q.shape(), DType::F32, device)?;
    let mut lse = TensorMut::unfilled_for(OP, [dims.b, dims.h, dims.lq], DType::F32, device)?;
    flash_into(input, out.part(&[])?, lse.part(&[])?)?;
    Ok(AttnSum {
        out: out.filled()?,
        lse: lse.filled()?,
    })
}

fn span(dims: &Dims) -> tracing::span::EnteredSpan {
    let &Dims {
        b, lq, lk, h, d, ..
    } = dims;
    tracing::trace_span!("attention", b, lq, lk, h, d).entered()
}
