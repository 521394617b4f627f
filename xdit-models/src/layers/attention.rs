//! Self-attention whose queries, keys and values are the output of one linear layer.

use xdit_kernels::attention::{Attention, AttnInput, Flash, Mask, Segment};
use xdit_kernels::{Tensor, View};

use crate::error::Result;

/// Queries, keys and values `[b, l, h, d]` inside the output `[b, l, 3·h·d]` of a fused projection.
fn fused_heads(qkv_blc: &Tensor, heads: usize) -> Result<[View<'_>; 3]> {
    let head_dim = qkv_blc.dim(2) / 3 / heads;
    let qkv_bl3hd = qkv_blc.view().split_last(&[3, heads, head_dim])?;
    Ok([
        qkv_bl3hd.select(2, 0)?,
        qkv_bl3hd.select(2, 1)?,
        qkv_bl3hd.select(2, 2)?,
    ])
}

/// Attention inside one stream: `[b, l, 3·h·d]` to `[b, l, h·d]`.
pub(crate) fn attend(
    qkv_blc: &Tensor,
    heads: usize,
    scale: Option<f32>,
    mask: Mask<'_>,
) -> Result<Tensor> {
    attend_by(&mut Flash, &[], qkv_blc, heads, scale, mask)
}

/// The same with any attention. `segments` describe the rows of the stream that are here.
pub(crate) fn attend_by(
    attention: &mut dyn Attention,
    segments: &[Segment],
    qkv_blc: &Tensor,
    heads: usize,
    scale: Option<f32>,
    mask: Mask<'_>,
) -> Result<Tensor> {
    let [q, k, v] = fused_heads(qkv_blc, heads)?;
    let input = AttnInput::new(q, k, v)
        .with_segments(segments)
        .with_scale(scale)
        .with_mask(mask);
    let out = attention.attend(&input)?.out;
    Ok(out.reshape([qkv_blc.dim(0), qkv_blc.dim(1), qkv_blc.dim(2) / 3])?)
}
