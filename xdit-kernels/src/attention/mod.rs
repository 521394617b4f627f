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
mod flash;
mod input;
mod lanes;
mod operands;
mod pack;
mod scratch;
mod seen;
mod softmax;
mod sum;
#[cfg(test)]
mod tests;
mod tile;

pub use flash::{flash_accumulate_into, flash_into};
pub use input::{AttnInput, AttnOut, Mask, Segment};
pub use sum::AttnSum;

use crate::Result;

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

    /// Attention over the keys of `input` and those of `sum`, which has the same queries and none of these keys. `None` stands for
    /// no keys so far.
    ///
    /// By default this is [`attend`](Self::attend) and a [merge](crate::merge::merge_in_place). [`Flash`] does both in one kernel on a
    /// GPU, and returns the same bytes as the default on the processor.
    ///
    /// # Errors
    /// As [`attend`](Self::attend)'s, or if `sum` has other shapes.
    fn accumulate(&mut self, input: &AttnInput<'_>, sum: Option<AttnSum>) -> Result<AttnSum> {
        AttnSum::add(sum, &self.attend(input)?)
    }

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

    fn accumulate(&mut self, input: &AttnInput<'_>, sum: Option<AttnSum>) -> Result<AttnSum> {
        (**self).accumulate(input, sum)
    }

    fn progress(&mut self) -> Result<()> {
        (**self).progress()
    }
}

impl<A: Attention + ?Sized> Attention for &mut A {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        (**self).attend(input)
    }

    fn accumulate(&mut self, input: &AttnInput<'_>, sum: Option<AttnSum>) -> Result<AttnSum> {
        (**self).accumulate(input, sum)
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
        flash::attend(input)
    }

    fn accumulate(&mut self, input: &AttnInput<'_>, sum: Option<AttnSum>) -> Result<AttnSum> {
        flash::accumulate(input, sum)
    }
}
