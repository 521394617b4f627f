//! Attention: the trait that parallel strategies implement by wrapping one another, and the kernel that the innermost one
//! calls.
//!
//! Shapes: b batch, l tokens (lq queries, lk keys), h heads, d head dim.

mod block;
mod call;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod dims;
mod input;
mod lanes;
mod operands;
mod pack;
mod scratch;
mod seen;
mod softmax;
#[cfg(test)]
mod tests;
mod tile;

pub use input::{AttnInput, AttnOut, Mask, Segment};

use crate::{DType, DeviceKind, Error, Result, TensorMut, View, ViewMut, dispatch::one_device};
use dims::{Dims, OP};

/// Attention over every key that an implementation can reach.
///
/// A model calls [`attend`](Self::attend) and knows no more. The wrappers around [`Flash`] decide whether keys of other ranks
/// take part.
pub trait Attention {
    /// softmax(q kᵀ · scale + mask) v, with the log of each row's denominator.
    ///
    /// # Errors
    /// If shapes or dtypes do not fit each other, there is no memory, or a wrapper's communication fails.
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut>;

    /// Tells the implementation that the caller has finished an operation outside attention. A wrapper passes the call on to
    /// what it wraps. The innermost implementation may report to other ranks that this one is at work.
    ///
    /// # Errors
    /// If what the caller computes is of no use any more, since another rank has failed.
    fn progress(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<A: Attention + ?Sized> Attention for Box<A> {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        (**self).attend(input)
    }

    fn progress(&mut self) -> Result<()> {
        (**self).progress()
    }
}

impl<A: Attention + ?Sized> Attention for &mut A {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        (**self).attend(input)
    }

    fn progress(&mut self) -> Result<()> {
        (**self).progress()
    }
}

/// Flash attention over the local keys, which every nest of wrappers calls in the end. It ignores `segments` and `keys`.
///
/// Online softmax over blocks of 256 keys (Dao et al., "FlashAttention", arXiv:2205.14135), so memory does not grow with
/// lq · lk: keys and values are copied once into the layout of the matrix kernel, one kv head (up to 8 MiB) for each
/// thread, or at most 64 MiB for all (or one kv head, if that is more); each task holds a tile of scores and the sums of
/// 84 rows. A row's result does not depend on the other
/// rows or on the number of threads.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, attention::{AttnInput, Attention, Flash}};
/// let device = &Device::cpu();
/// // One query that is equally near to both keys: the mean of the values, and ln(e⁰ + e⁰).
/// let (q, k, v) = ([0f32, 0.], [1f32, 2., 3., 4.], [10f32, 20., 30., 40.]);
/// let q = View::from_slice(&q, [1, 1, 1, 2], device)?;
/// let k = View::from_slice(&k, [1, 2, 1, 2], device)?;
/// let v = View::from_slice(&v, [1, 2, 1, 2], device)?;
/// let got = Flash.attend(&AttnInput::new(q, k, v))?;
/// assert_eq!(got.out.to_vec_blocking::<f32>()?, [20., 30.]);
/// assert!((got.lse.to_vec_blocking::<f32>()?[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Flash;

impl Attention for Flash {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
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
}

/// Writes what [`Flash`] returns into the caller's memory: `out` [b, lq, h, d] of q's dtype, `lse` [b, h, lq] f32.
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
    out.expect(OP, input.q.shape(), input.q.dtype())?;
    lse.expect(OP, &[dims.b, dims.h, dims.lq], DType::F32)?;
    if dims.d > 1 && out.strides()[3] != 1 {
        return Err(Error::shape(OP, "an output whose last stride is 1", out));
    }
    let Dims {
        b, lq, lk, h, d, ..
    } = dims;
    let _span = tracing::trace_span!("attention", b, lq, lk, h, d).entered();
    let views = [Some(input.q), Some(input.k), Some(input.v)];
    let masks = [input.mask.key_mask, input.mask.bias];
    let inputs = views.iter().chain(&masks).flatten().map(View::device);
    match one_device(OP, inputs.chain([out.device(), lse.device()]))? {
        DeviceKind::Cpu(_) => {
            lse.written_by(|lse| out.written_by(|out| cpu::flash(input, &dims, out, lse)))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            lse.written_by(|lse| out.written_by(|out| cuda::flash(input, &dims, out, lse)))
        }
    }
}
