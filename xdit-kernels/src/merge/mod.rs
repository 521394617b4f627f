//! Merging partial attentions: the same queries over two disjoint sets of keys.
//!
//! With l the log-sum-exp of each part, softmax over the union weighs the parts by e^l (Milakov and Gimelshein, "Online
//! normalizer calculation for softmax", arXiv:1805.02867; the step between two hops of ring attention).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod part;
#[cfg(test)]
mod tests;

use crate::{
    DType, DeviceKind, Error, Result, Tensor, TensorMut, ViewMut, attention::AttnOut,
    dispatch::one_device,
};
use part::{MergedPart, steady};

/// Attention over the keys of both parts, which share no key.
///
/// Where a part saw no key in a row (lse −∞), the result is the other part's row, bit for bit. The result has the dtype of
/// `a`.
///
/// # Errors
/// If the shapes differ or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, attention::{AttnInput, Attention, Flash}, merge::merge};
/// let device = &Device::cpu();
/// let (q, k, v) = ([0.5f32, 1.], [1f32, 2., 3., 4.], [10f32, 20., 30., 40.]);
/// let q = View::from_slice(&q, [1, 1, 1, 2], device)?;
/// let k = View::from_slice(&k, [1, 2, 1, 2], device)?;
/// let v = View::from_slice(&v, [1, 2, 1, 2], device)?;
/// let whole = Flash.attend(&AttnInput::new(q, k, v))?;
/// let first = Flash.attend(&AttnInput::new(q, k.narrow(1, 0, 1)?, v.narrow(1, 0, 1)?))?;
/// let second = Flash.attend(&AttnInput::new(q, k.narrow(1, 1, 1)?, v.narrow(1, 1, 1)?))?;
/// let both = merge(&first, &second)?;
/// let far = (both.out.to_vec_blocking::<f32>()?[0] - whole.out.to_vec_blocking::<f32>()?[0]).abs();
/// assert!(far < 1e-5);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn merge(a: &AttnOut, b: &AttnOut) -> Result<AttnOut> {
    let device = a.out.device();
    // SAFETY: `merge_into` writes every element of both outputs, or fails and they are dropped.
    let (mut out, mut lse) = unsafe {
        (
            TensorMut::uninit(OP, a.out.shape(), a.out.dtype(), device)?,
            TensorMut::uninit(OP, a.lse.shape(), DType::F32, device)?,
        )
    };
    merge_into(a, b, out.view_mut(), lse.view_mut())?;
    Ok(AttnOut {
        out: out.freeze(),
        lse: lse.freeze(),
    })
}

/// Writes what [`merge`] returns into the caller's memory: `out` [b, lq, h, d] of `a`'s dtype, `lse` [b, h, lq] f32.
///
/// # Errors
/// If the shapes differ.
pub fn merge_into(a: &AttnOut, b: &AttnOut, out: ViewMut<'_>, lse: ViewMut<'_>) -> Result<()> {
    for part in [a, b] {
        expect_part(part, a.out.shape())?;
    }
    out.expect(OP, a.out.shape(), a.out.dtype())?;
    lse.expect(OP, a.lse.shape(), DType::F32)?;
    expect_adjacent(&out)?;
    let _span = span(&out);
    let tensors = [&a.out, &a.lse, &b.out, &b.lse].map(Tensor::device);
    let outputs = [out.device(), lse.device()];
    match one_device(OP, tensors.into_iter().chain(outputs))? {
        DeviceKind::Cpu(_) => {
            let (a, b) = (&steady(a)?, &steady(b)?);
            let parts = [a, b].map(MergedPart::of);
            lse.written_by(|lse| out.written_by(|out| cpu::merge(OP, parts, out, lse)))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            let parts = [a, b].map(MergedPart::of);
            lse.written_by(|lse| out.written_by(|out| cuda::merge(OP, parts, out, lse)))
        }
    }
}

/// Merges `part` into what `out` [b, lq, h, d] and `lse` [b, h, lq] f32 hold: attention over other keys. The result is that of
/// [`merge`] with the part as `b`, without memory of its own.
///
/// # Errors
/// If the shapes differ.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, ViewMut, attention::AttnOut, merge::merge_in_place};
/// let device = &Device::cpu();
/// // Two parts of equal weight: the mean of both.
/// let (mut out, mut lse) = ([1f32], [0f32]);
/// let part = AttnOut {
///     out: Tensor::from_slice(&[3f32], [1, 1, 1, 1], device)?,
///     lse: Tensor::from_slice(&[0f32], [1, 1, 1], device)?,
/// };
/// merge_in_place(
///     ViewMut::from_slice(&mut out, [1, 1, 1, 1], device)?,
///     ViewMut::from_slice(&mut lse, [1, 1, 1], device)?,
///     &part,
/// )?;
/// assert_eq!((out, lse), ([2.], [2f32.ln()]));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn merge_in_place(mut out: ViewMut<'_>, mut lse: ViewMut<'_>, part: &AttnOut) -> Result<()> {
    expect_part(part, out.shape())?;
    lse.expect(OP, part.lse.shape(), DType::F32)?;
    expect_adjacent(&out)?;
    let _span = span(&out);
    let tensors = [&part.out, &part.lse].map(Tensor::device);
    let kind = one_device(OP, [out.device(), lse.device()].into_iter().chain(tensors))?;
    for output in [&out, &lse] {
        output.expect_initialised(OP)?;
    }
    // SAFETY: both are initialised, and both kernels read a row before they write it.
    let held = unsafe { MergedPart::in_place(&mut out, &mut lse) };
    match kind {
        DeviceKind::Cpu(_) => {
            let part = &steady(part)?;
            let parts = [held, MergedPart::of(part)];
            lse.written_by(|lse| out.written_by(|out| cpu::merge(OP, parts, out, lse)))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            let parts = [held, MergedPart::of(part)];
            lse.written_by(|lse| out.written_by(|out| cuda::merge(OP, parts, out, lse)))
        }
    }
}

/// Checks that a part is attention [b, lq, h, d] of this shape.
fn expect_part(part: &AttnOut, shape: &[usize]) -> Result<()> {
    let &[b, lq, h, _] = shape else {
        return Err(Error::shape(OP, "out [b, lq, h, d]", shape));
    };
    if part.out.shape() != shape || part.lse.shape() != [b, h, lq] {
        let want = format!("out {shape:?} with lse {:?}", [b, h, lq]);
        return Err(Error::shape(OP, want, (&part.out, &part.lse)));
    }
    if part.lse.dtype() != DType::F32 {
        return Err(Error::DType {
            op: OP,
            expected: "f32 lse".into(),
            got: part.lse.dtype(),
        });
    }
    Ok(())
}

/// The span of one merge.
fn span(out: &ViewMut<'_>) -> tracing::span::EnteredSpan {
    let [b, lq, h] = [0, 1, 2].map(|dim| out.shape()[dim]);
    tracing::trace_span!("merge", b, lq, h).entered()
}

fn expect_adjacent(out: &ViewMut<'_>) -> Result<()> {
    match out.strides()[3] {
        1 => Ok(()),
        _ => Err(Error::shape(OP, "an output whose last stride is 1", out)),
    }
}

const OP: &str = "merge";
