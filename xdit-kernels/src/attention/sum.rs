//! Attention over keys that come in several parts, which one call after another adds up.

use super::{dims::OP, input::AttnOut};
use crate::{DType, Result, Tensor, TensorMut, layout, merge::merge_in_place};

/// Attention of some queries over the keys of several parts, added up by
/// [`Attention::accumulate`](super::Attention::accumulate). The output is f32, so that it is rounded once, at the end.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, attention::{AttnInput, Attention, Flash}};
/// let device = &Device::cpu();
/// let (q, k, v) = ([0f32, 0.], [1f32, 2., 3., 4.], [10f32, 20., 30., 40.]);
/// let q = View::from_slice(&q, [1, 1, 1, 2], device)?;
/// let k = View::from_slice(&k, [1, 2, 1, 2], device)?;
/// let v = View::from_slice(&v, [1, 2, 1, 2], device)?;
/// let part = |key| Ok::<_, xdit_kernels::Error>(AttnInput::new(q, k.narrow(1, key, 1)?, v.narrow(1, key, 1)?));
/// let first = Flash.accumulate(&part(0)?, None)?;
/// let both = Flash.accumulate(&part(1)?, Some(first))?.freeze();
/// assert_eq!(both.out.to_vec_blocking::<f32>()?, [20., 30.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct AttnSum {
    /// [b, lq, h, d] f32.
    pub out: TensorMut,
    /// [b, h, lq] f32: natural log of the sum of e^score over the keys so far.
    pub lse: TensorMut,
}

impl AttnSum {
    /// Adds `part` to `sum`, or begins with it.
    pub(super) fn add(sum: Option<Self>, part: &AttnOut) -> Result<Self> {
        if let Some(mut sum) = sum {
            merge_in_place(sum.out.view_mut(), sum.lse.view_mut(), part)?;
            return Ok(sum);
        }
        let copy = |x: &Tensor| {
            let mut copy = TensorMut::unfilled_for(OP, x.shape(), DType::F32, x.device())?;
            layout::copy_into(x, copy.part(&[])?)?;
            copy.filled()
        };
        Ok(Self {
            out: copy(&part.out)?,
            lse: copy(&part.lse)?,
        })
    }

    /// The sum as the output of attention, still f32.
    pub fn freeze(self) -> AttnOut {
        AttnOut {
            out: self.out.freeze(),
            lse: self.lse.freeze(),
        }
    }
}
