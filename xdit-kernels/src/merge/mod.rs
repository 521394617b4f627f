//! Merging partial attentions: the same queries over two disjoint sets of keys.
//!
//! With l the log-sum-exp of each part, softmax over the union weighs the parts by e^l (Milakov and Gimelshein, "Online
//! normalizer calculation for softmax", arXiv:1805.02867; the step between two hops of ring attention).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{
    DType, DeviceKind, Error, Result, Tensor, TensorMut, ViewMut, attention::AttnOut,
    dispatch::one_device,
};

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
    let &[batch, lq, h, _] = a.out.shape() else {
        return Err(Error::shape(OP, "out [b, lq, h, d]", &a.out));
    };
    for part in [a, b] {
        if part.out.shape() != a.out.shape() || part.lse.shape() != [batch, h, lq] {
            let want = format!("out {:?} with lse {:?}", a.out.shape(), [batch, h, lq]);
            return Err(Error::shape(OP, want, (&part.out, &part.lse)));
        }
        if part.lse.dtype() != DType::F32 {
            return Err(Error::DType {
                op: OP,
                expected: "f32 lse".into(),
                got: part.lse.dtype(),
            });
        }
    }
    out.expect(OP, a.out.shape(), a.out.dtype())?;
    lse.expect(OP, a.lse.shape(), DType::F32)?;
    if out.strides()[3] != 1 {
        return Err(Error::shape(OP, "an output whose last stride is 1", out));
    }
    let _span = tracing::trace_span!("merge", b = batch, lq, h).entered();
    let tensors = [&a.out, &a.lse, &b.out, &b.lse].map(Tensor::device);
    let outputs = [out.device(), lse.device()];
    match one_device(OP, tensors.into_iter().chain(outputs))? {
        DeviceKind::Cpu(_) => {
            lse.written_by(|lse| out.written_by(|out| cpu::merge(OP, a, b, out, lse)))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            lse.written_by(|lse| out.written_by(|out| cuda::merge(OP, a, b, out, lse)))
        }
    }
}

const OP: &str = "merge";
