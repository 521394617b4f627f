//! The inputs of a HunyuanDiT transformer besides latents and text: timestep, pooled text, sizes and style, combined in one
//! vector (diffusers `models/embeddings.py`).
//!
//! Shapes: b images, l tokens, c channels.

use xdit_kernels::attention::{Attention, AttnInput, Flash};
use xdit_kernels::linear::Linear;
use xdit_kernels::{DType, Tensor, elementwise};

use super::HunyuanConfig;
use super::config::POOLER_HEADS;
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{Mlp, Packing, TIME_CHANNELS, byte_len, sinusoid};
use crate::observer::Observer;

/// The numbers that describe the original size of an image, its target size and its crop.
pub(super) const SIZE_NUMBERS: usize = 6;

/// Attention from the mean of mT5's embeddings to all of them (`HunyuanDiTAttentionPool`).
#[derive(Debug)]
struct Pooler {
    /// The positions of the mean, then of each token: `[1 + l, c]`.
    positions: Tensor,
    q: Linear,
    kv: Linear,
    out: Linear,
}

impl Pooler {
    fn load(config: &HunyuanConfig, scope: &Scope<'_>, packing: &mut Packing<'_>) -> Result<Self> {
        let c = config.cross_attention_dim_t5;
        let shape = [1 + config.text_len_t5, c];
        let kv = ["k_proj", "v_proj"].map(|name| (scope.child(name), c));
        Ok(Self {
            positions: packing.small(scope, "positional_embedding", &shape)?,
            q: packing.linear(&scope.child("q_proj"), [c, c], true)?,
            kv: packing.fused(&kv, c, true)?,
            out: packing.linear(
                &scope.child("c_proj"),
                [config.pooled_projection_dim, c],
                true,
            )?,
        })
    }

    /// `[b, l, c]` to `[b, pooled]`, f32.
    fn forward(&self, embeds_blc: &Tensor) -> Result<Tensor> {
        let (b, c) = (embeds_blc.dim(0), embeds_blc.dim(2));
        let heads = [POOLER_HEADS, c / POOLER_HEADS];
        let embeds_blc = embeds_blc.to_dtype(DType::F32)?;
        // To a query of zeros all keys are equally near, and attention is the mean of the values.
        let zeros = Tensor::zeros([b, 1, heads[0], heads[1]], DType::F32, embeds_blc.device())?;
        let values = embeds_blc.view().split_last(&heads)?;
        let equally = AttnInput::new(&zeros, values, values).with_lse(false);
        let mean_b1c = Flash.attend(&equally)?.out.reshape([b, 1, c])?;
        let x_blc = Tensor::cat(&[mean_b1c.view(), embeds_blc.view()], 1)?;
        let x_blc = elementwise::add(&x_blc, &self.positions)?;
        let q_b1c = self.q.forward(x_blc.view().narrow(1, 0, 1)?)?;
        let kv_blc = self.kv.forward(&x_blc)?;
        let kv = kv_blc.view().split_last(&[2, heads[0], heads[1]])?;
        let q = q_b1c.view().split_last(&heads)?;
        let input = AttnInput::new(q, kv.select(2, 0)?, kv.select(2, 1)?).with_lse(false);
        let pooled = Flash.attend(&input)?.out.reshape([b, c])?;
        Ok(self.out.forward(&pooled)?)
    }

    fn byte_len(&self) -> usize {
        byte_len(&[&self.q, &self.kv, &self.out], &[&self.positions])
    }
}

/// Combines timestep, pooled text, sizes and style in the one vector that shifts every block
/// (`HunyuanCombinedTimestepTextSizeStyleEmbedding`), in f32 for all dtypes.
#[derive(Debug)]
pub(super) struct TimeExtraEmbed {
    timestep: Mlp,
    pooler: Pooler,
    /// The only style, `[1, c]`, in models that embed styles and sizes.
    style: Option<Tensor>,
    extra: Mlp,
}

impl TimeExtraEmbed {
    pub(super) fn load(
        config: &HunyuanConfig,
        scope: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let c = config.hidden_size();
        let style = scope.child("style_embedder");
        Ok(Self {
            timestep: Mlp::load(
                &scope.child("timestep_embedder"),
                [TIME_CHANNELS, c, c],
                packing,
            )?,
            pooler: Pooler::load(config, &scope.child("pooler"), packing)?,
            style: match config.style_and_size {
                true => Some(packing.small(&style, "weight", &[1, c])?),
                false => None,
            },
            extra: Mlp::load(
                &scope.child("extra_embedder"),
                [extra_channels(config), 4 * c, c],
                packing,
            )?,
        })
    }

    /// Returns the vector of mT5's embeddings `[b, l, c]` and the sizes, f32 `[b, c]`. It is the same in every step.
    pub(super) fn extra(
        &self,
        embeds_blc: &Tensor,
        sizes: &[f32; SIZE_NUMBERS],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let pooled_bc = self.pooler.forward(embeds_blc)?;
        observer.offer("transformer.pooler", &pooled_bc)?;
        let rows = |row: &Tensor| Tensor::cat(&vec![row.view(); pooled_bc.dim(0)], 0);
        let joined = match &self.style {
            None => pooled_bc,
            Some(style) => {
                let sizes = sinusoid(sizes, pooled_bc.device())?;
                observer.offer("transformer.size_proj", &rows(&sizes)?)?;
                let sizes = rows(&sizes.reshape([1, SIZE_NUMBERS * TIME_CHANNELS])?)?;
                let style = rows(style)?;
                observer.offer("transformer.style_embedder", &style)?;
                Tensor::cat(&[pooled_bc.view(), sizes.view(), style.view()], 1)?
            }
        };
        let extra_bc = self.extra.forward(&joined)?;
        observer.offer("transformer.extra_embedder", &extra_bc)?;
        Ok(extra_bc)
    }

    /// Returns the vector of timesteps from 1000 down and of the constant part, f32 `[b, c]`.
    pub(super) fn forward(
        &self,
        timestep: &[f32],
        extra_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let projected = sinusoid(timestep, extra_bc.device())?;
        observer.offer("transformer.time_proj", &projected)?;
        let temb = self.timestep.forward(&projected)?;
        observer.offer("transformer.timestep_embedder", &temb)?;
        let temb = elementwise::add(&temb, extra_bc)?;
        observer.offer("transformer.temb", &temb)?;
        Ok(temb)
    }

    /// Returns the bytes of the weights.
    pub(super) fn byte_len(&self) -> usize {
        let style: Vec<_> = self.style.iter().collect();
        self.timestep.byte_len()
            + self.pooler.byte_len()
            + self.extra.byte_len()
            + byte_len(&[], &style)
    }
}

/// The number of values of the pooled text, the sizes and the style together.
pub(super) fn extra_channels(config: &HunyuanConfig) -> usize {
    let others = match config.style_and_size {
        true => SIZE_NUMBERS * TIME_CHANNELS + config.hidden_size(),
        false => 0,
    };
    config.pooled_projection_dim + others
}
