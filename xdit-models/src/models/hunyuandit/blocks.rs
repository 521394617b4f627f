//! The blocks of HunyuanDiT (diffusers `models/transformers/hunyuan_transformer_2d.py`, `HunyuanDiTBlock`).
//!
//! Shapes: b images, l image tokens, t text tokens, h heads, d head dim, c = h · d channels.

use xdit_kernels::activation::Activation;
use xdit_kernels::attention::{Attention, AttnInput, Flash};
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::norm::{layer_norm, layer_norm_shift};
use xdit_kernels::rope::{HeadNorm, layer_norm_rope};
use xdit_kernels::{Tensor, elementwise};

use super::{HunyuanConfig, HunyuanPositions};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{EPS, Joint, LayerNorm, Packing, byte_len, linear};

/// A LayerNorm over each head of queries or keys.
#[derive(Debug)]
struct QkNorm {
    weight: Tensor,
    bias: Tensor,
}

impl QkNorm {
    fn load(scope: &Scope<'_>, head_dim: usize, packing: &mut Packing<'_>) -> Result<Self> {
        Ok(Self {
            weight: packing.vector(scope, "weight", head_dim)?,
            bias: packing.vector(scope, "bias", head_dim)?,
        })
    }

    fn head_norm(&self) -> HeadNorm<'_> {
        HeadNorm::Layer {
            weight: self.weight.view(),
            bias: self.bias.view(),
        }
    }

    fn byte_len(&self) -> usize {
        byte_len(&[], &[&self.weight, &self.bias])
    }
}

/// The image's attention to itself (`attn1`).
#[derive(Debug)]
struct SelfAttention {
    qkv: Linear,
    norm_q: QkNorm,
    norm_k: QkNorm,
    out: Linear,
}

/// The image's attention to the text (`attn2`). The keys and values of the text are computed once per image.
#[derive(Debug)]
struct CrossAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    norm_q: QkNorm,
    norm_k: QkNorm,
    out: Linear,
}

/// The layers that add the output of an earlier block to a block's input.
#[derive(Debug)]
struct Skip {
    norm: LayerNorm,
    linear: Linear,
}

/// One block: self-attention, cross-attention and feed-forward layers. Only its first norm depends on the step.
#[derive(Debug)]
pub(super) struct HunyuanBlock {
    skip: Option<Skip>,
    /// The layer that computes the shift after the first norm from the vector of the timestep.
    shift: Linear,
    norm1: [Tensor; 2],
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    heads: usize,
}

/// The inputs of a block in a step, besides the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockConditioning<'a> {
    /// Added after the first norm, f32 `[b, c]`.
    pub(super) shift_bc: &'a Tensor,
    pub(super) text: &'a TextKv,
}

/// Keys and values of the text in one block, `[b, t, h, d]` each.
#[derive(Clone, Debug)]
pub(super) struct TextKv {
    k: Tensor,
    v: Tensor,
}

impl TextKv {
    pub(super) fn byte_len(&self) -> usize {
        [&self.k, &self.v]
            .map(|x| x.numel() * x.dtype().size())
            .iter()
            .sum()
    }
}

impl HunyuanBlock {
    /// Loads block `block` of the transformer.
    pub(super) fn load(
        scope: &Scope<'_>,
        config: &HunyuanConfig,
        block: usize,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (c, d) = (config.hidden_size(), config.attention_head_dim);
        let (text, inner) = (config.cross_attention_dim, config.ff_inner_dim);
        let [attn1, attn2, norm1] = ["attn1", "attn2", "norm1"].map(|name| scope.child(name));
        let norm = norm1.child("norm");
        let qkv = ["to_q", "to_k", "to_v"].map(|name| (attn1.child(name), c));
        let net = scope.child("ff").child("net");
        let skip = match config.skip_source(block) {
            None => None,
            Some(_) => Some(Skip {
                norm: LayerNorm::load(&scope.child("skip_norm"), 2 * c, EPS, packing)?,
                linear: packing.linear(&scope.child("skip_linear"), [c, 2 * c], true)?,
            }),
        };
        Ok(Self {
            skip,
            shift: packing.linear(&norm1.child("linear"), [c, c], true)?,
            norm1: [
                packing.vector(&norm, "weight", c)?,
                packing.vector(&norm, "bias", c)?,
            ],
            attn1: SelfAttention {
                qkv: packing.fused(&qkv, c, true)?,
                norm_q: QkNorm::load(&attn1.child("norm_q"), d, packing)?,
                norm_k: QkNorm::load(&attn1.child("norm_k"), d, packing)?,
                out: packing.linear(&attn1.child("to_out.0"), [c, c], true)?,
            },
            norm2: LayerNorm::load(&scope.child("norm2"), c, EPS, packing)?,
            attn2: CrossAttention {
                q: packing.linear(&attn2.child("to_q"), [c, c], true)?,
                k: packing.linear(&attn2.child("to_k"), [c, text], true)?,
                v: packing.linear(&attn2.child("to_v"), [c, text], true)?,
                norm_q: QkNorm::load(&attn2.child("norm_q"), d, packing)?,
                norm_k: QkNorm::load(&attn2.child("norm_k"), d, packing)?,
                out: packing.linear(&attn2.child("to_out.0"), [c, c], true)?,
            },
            norm3: LayerNorm::load(&scope.child("norm3"), c, EPS, packing)?,
            ff_in: packing.linear(&net.child("0.proj"), [inner, c], true)?,
            ff_out: packing.linear(&net.child("2"), [c, inner], true)?,
            heads: config.num_attention_heads,
        })
    }

    /// Returns keys and values of the text `[b, t, cross_attention_dim]`. They are the same in every step and have no
    /// positions.
    pub(super) fn text_kv(&self, text_btc: &Tensor) -> Result<TextKv> {
        let CrossAttention { k, v, norm_k, .. } = &self.attn2;
        let heads = [self.heads, k.out_features() / self.heads];
        let k_btc = k.forward(text_btc)?;
        let (weight, bias) = (norm_k.weight.view(), norm_k.bias.view());
        let k_bthd = k_btc.view().split_last(&heads)?;
        let v_btc = v.forward(text_btc)?;
        Ok(TextKv {
            k: layer_norm(k_bthd, Some(weight), Some(bias), EPS)?,
            v: v_btc.view().split_last(&heads)?.to_tensor()?,
        })
    }

    /// Returns the shift after the first norm in a step, f32 `[b, c]`.
    pub(super) fn shift(&self, silu_temb_bc: &Tensor) -> Result<Tensor> {
        let [_, bias] = &self.norm1;
        Ok(elementwise::add(&self.shift.forward(silu_temb_bc)?, bias)?)
    }

    /// Returns the input of the block: the stream combined with the output of an earlier block, all `[b, l, c]`. It is `x_blc`
    /// itself if the block has no such input.
    pub(super) fn join(
        &self,
        x_blc: &Tensor,
        skip_blc: &Tensor,
        attention: &mut dyn Attention,
    ) -> Result<Tensor> {
        let Some(skip) = &self.skip else {
            return Ok(x_blc.clone());
        };
        let both = Tensor::cat(&[x_blc.view(), skip_blc.view()], 2)?;
        let normed = skip.norm.forward(&both)?;
        linear(&skip.linear, &[normed.view()], Epilogue::None, attention)
    }

    /// Returns the stream `[b, l, c]` after the block. `attention` is that of the image.
    pub(super) fn forward(
        &self,
        x_blc: &Tensor,
        BlockConditioning { shift_bc, text }: BlockConditioning<'_>,
        positions: &HunyuanPositions,
        attention: &mut dyn Attention,
    ) -> Result<Tensor> {
        let rope = (positions.cos().view(), positions.sin().view());
        let [weight, _] = &self.norm1;
        let normed = layer_norm_shift(x_blc, weight, shift_bc, EPS)?;
        let mut image = Joint::new(x_blc, x_blc.dim(1), self.heads)?;
        let SelfAttention { qkv, out, .. } = &self.attn1;
        let norms = [&self.attn1.norm_q, &self.attn1.norm_k].map(QkNorm::head_norm);
        let qkv_blc = linear(qkv, &[normed.view()], Epilogue::None, attention)?;
        image.fill(&qkv_blc, Some(norms), Some(rope))?;
        drop(qkv_blc);
        drop(normed);
        let attn_blc = image.attend(attention, positions.segments())?;
        let residual = Epilogue::Residual(x_blc.view());
        let x_blc = linear(out, &[attn_blc.view()], residual, attention)?;
        drop(attn_blc);

        let CrossAttention { q, norm_q, out, .. } = &self.attn2;
        let normed = self.norm2.forward(&x_blc)?;
        let q_blc = linear(q, &[normed.view()], Epilogue::None, attention)?;
        drop(normed);
        let heads = [self.heads, q_blc.dim(2) / self.heads];
        let (weight, bias) = (norm_q.weight.view(), norm_q.bias.view());
        let q_blhd = q_blc.view().split_last(&heads)?;
        let q_blhd = layer_norm_rope(q_blhd, weight, bias, EPS, Some(rope))?;
        drop(q_blc);
        let input = AttnInput::new(&q_blhd, &text.k, &text.v).with_lse(false);
        let attn_blc = Flash.attend(&input)?.out.reshape(x_blc.shape())?;
        drop(q_blhd);
        attention.progress()?;
        let residual = Epilogue::Residual(x_blc.view());
        let after_blc = linear(out, &[attn_blc.view()], residual, attention)?;
        drop((attn_blc, x_blc));
        let x_blc = after_blc;

        let normed = self.norm3.forward(&x_blc)?;
        let gelu = Epilogue::Activation(Activation::GeluTanh);
        let inner = linear(&self.ff_in, &[normed.view()], gelu, attention)?;
        drop(normed);
        let residual = Epilogue::Residual(x_blc.view());
        linear(&self.ff_out, &[inner.view()], residual, attention)
    }

    /// Returns the bytes of the weights.
    pub(super) fn byte_len(&self) -> usize {
        let [weight, bias] = &self.norm1;
        let (own, text) = (&self.attn1, &self.attn2);
        let linears = [
            &self.shift,
            &own.qkv,
            &own.out,
            &text.q,
            &text.k,
            &text.v,
            &text.out,
            &self.ff_in,
            &self.ff_out,
        ];
        let skip = self.skip.as_ref();
        let norms = [&own.norm_q, &own.norm_k, &text.norm_q, &text.norm_k];
        byte_len(&linears, &[weight, bias])
            + norms.map(QkNorm::byte_len).iter().sum::<usize>()
            + self.norm2.byte_len()
            + self.norm3.byte_len()
            + skip.map_or(0, |skip| skip.norm.byte_len() + skip.linear.byte_len())
    }
}
