//! Queries, keys and values of text and image in common tensors, and other code that the blocks of joint transformers share.
//!
//! Shapes: b images, l tokens, h heads, d head dim, c = h · d channels.

use xdit_kernels::attention::{Attention, AttnInput, Segment};
use xdit_kernels::linear::Linear;
use xdit_kernels::rope::{HeadNorm, QkNormRope, qk_norm_rope_into};
use xdit_kernels::{Tensor, TensorMut, Unfilled, View};

use crate::error::Result;

/// Added to every variance and mean square in the blocks.
pub(crate) const EPS: f32 = 1e-6;

/// Returns one vector `[b, c]` of the concatenation `[b, n·c]` that a modulation layer computes.
pub(crate) fn chunk(modulation_bc: &Tensor, index: usize, channels: usize) -> Result<View<'_>> {
    Ok(modulation_bc.view().narrow(1, index * channels, channels)?)
}

/// Returns the bytes of packed layers and of tensors.
pub(crate) fn byte_len(linears: &[&Linear], tensors: &[&Tensor]) -> usize {
    let linears: usize = linears.iter().map(|linear| linear.byte_len()).sum();
    let tensors: usize = tensors.iter().map(|tensor| tensor.byte_len()).sum();
    linears + tensors
}

/// Queries, keys and values of text and image in common tensors `[b, l, h, d]`, while they are being filled.
pub(crate) struct Joint {
    q: Unfilled,
    k: Unfilled,
    v: Unfilled,
    heads: usize,
    /// How many rows are filled: text comes first, then the image.
    filled: usize,
}

impl Joint {
    pub(crate) fn new(like_blc: &Tensor, length: usize, heads: usize) -> Result<Self> {
        let shape = [like_blc.dim(0), length, heads, like_blc.dim(2) / heads];
        let new = || TensorMut::unfilled(shape, like_blc.dtype(), like_blc.device());
        Ok(Self {
            q: new()?,
            k: new()?,
            v: new()?,
            heads,
            filled: 0,
        })
    }

    /// Returns the number of filled rows, which is the first row of the next stream.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Writes `qkv_blc` `[b, n, 3c]` into the next n rows. Normalises queries and keys, and rotates them by these cosines and
    /// sines, if there are any.
    pub(crate) fn fill(
        &mut self,
        qkv_blc: &Tensor,
        norms: Option<[HeadNorm<'_>; 2]>,
        rope: Option<(View<'_>, View<'_>)>,
    ) -> Result<()> {
        let (len, c) = (qkv_blc.dim(1), qkv_blc.dim(2) / 3);
        let options = QkNormRope {
            norm_q: norms.map(|[norm_q, _]| norm_q),
            norm_k: norms.map(|[_, norm_k]| norm_k),
            eps: EPS,
            rope,
        };
        let qkv_bl3hd = qkv_blc
            .view()
            .split_last(&[3, self.heads, c / self.heads])?;
        let [q, k, v] =
            [&mut self.q, &mut self.k, &mut self.v].map(|t| t.part(&[(1, self.filled, len)]));
        qk_norm_rope_into(qkv_bl3hd, &options, q?, k?, v?)?;
        self.filled += len;
        Ok(())
    }

    /// `[b, l, c]`; `segments` are the rows that there are of each stream.
    pub(crate) fn attend(
        self,
        attention: &mut dyn Attention,
        segments: &[Segment],
    ) -> Result<Tensor> {
        let (q, k, v) = (self.q.freeze()?, self.k.freeze()?, self.v.freeze()?);
        let input = AttnInput::new(&q, &k, &v)
            .with_segments(segments)
            .with_lse(false);
        let out = attention.attend(&input)?.out;
        let shape = [out.dim(0), out.dim(1), out.dim(2) * out.dim(3)];
        Ok(out.reshape(shape)?)
    }
}
