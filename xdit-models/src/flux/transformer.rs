//! The Flux transformer (diffusers `models/transformers/transformer_flux.py`, `FluxTransformer2DModel`).
//!
//! Shapes: b images, l tokens, c channels.

use half::f16;
use rayon::prelude::*;
use xdit_kernels::activation::{Activation, activation};
use xdit_kernels::attention::{Attention, Flash};
use xdit_kernels::linear::Linear;
use xdit_kernels::norm::layer_norm_modulate;
use xdit_kernels::{DType, Tensor};

use super::blocks::{DoubleBlock, EPS, SingleBlock, chunk};
use super::embeddings::TimeTextEmbed;
use super::{FluxConfig, RotaryTables};
use crate::error::{Error, Result};
use crate::layers::Packing;
use crate::observer::Observer;
use crate::weights::Scope;

/// A Flux transformer: weights only, so that threads may share it.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor};
/// use xdit_models::ConfigFile;
/// use xdit_models::flux::{FluxConfig, FluxInput, FluxTransformer, RotaryTables};
/// use xdit_models::layers::Packing;
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"attention_head_dim": 8, "num_attention_heads": 2, "num_layers": 1, "num_single_layers": 1,
///     "axes_dims_rope": [2, 2, 4], "joint_attention_dim": 8, "pooled_projection_dim": 4}"#;
/// let config = FluxConfig::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let model = FluxTransformer::load(&config, &Scope::root(&weights), packing)?;
///
/// let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::cpu());
/// let text = model.embed_text(&zeros(&[1, 3, 8])?, &zeros(&[1, 4])?)?;
/// let rotary = RotaryTables::new(&config.axes_dims_rope, 3, 2, 2)?;
/// let latents = zeros(&[1, 4, 64])?;
/// let input = FluxInput { latents: &latents, text: &text, timestep: &[1.0], guidance: None, rotary: &rotary };
/// let prediction = model.forward(&input, &mut model.attention(), &mut ())?;
/// assert_eq!(prediction.shape(), [1, 4, 64]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct FluxTransformer {
    config: FluxConfig,
    x_embedder: Linear,
    context_embedder: Linear,
    time_text_embed: TimeTextEmbed,
    blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    norm_out: Linear,
    proj_out: Linear,
    dtype: DType,
}

/// A prompt as the transformer reads it; the same in every step.
#[derive(Clone, Debug)]
pub struct FluxText {
    /// `[b, l, c]`.
    context: Tensor,
    /// `[b, c]`, f32.
    pooled: Tensor,
}

impl FluxText {
    /// Prompts `start..start + len`.
    pub(crate) fn select(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            context: self.context.narrow(0, start, len)?,
            pooled: self.pooled.narrow(0, start, len)?,
        })
    }

    /// The same prompts with other rows of their tokens.
    pub(crate) fn with_rows(&self, rows: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            context: rows(&self.context)?,
            pooled: self.pooled.clone(),
        })
    }
}

/// The arguments of one forward pass.
#[derive(Clone, Copy, Debug)]
pub struct FluxInput<'a> {
    /// Packed latents: `[b, image tokens, in_channels]`.
    pub latents: &'a Tensor,
    /// The prompts.
    pub text: &'a FluxText,
    /// One per image: the scheduler's timestep divided by 1000, so from 1 down.
    pub timestep: &'a [f32],
    /// One per image; needed by models with `guidance_embeds`, ignored by others.
    pub guidance: Option<&'a [f32]>,
    /// The rotary tables of text and image. Where they are those of a part of the tokens, so are latents and text.
    pub rotary: &'a RotaryTables,
}

impl FluxTransformer {
    /// The transformer of this configuration.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong.
    pub fn load(
        config: &FluxConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let c = config.hidden_size();
        let blocks = weights.child("transformer_blocks");
        let single_blocks = weights.child("single_transformer_blocks");
        Ok(Self {
            x_embedder: packing.linear(
                &weights.child("x_embedder"),
                [c, config.in_channels],
                true,
            )?,
            context_embedder: packing.linear(
                &weights.child("context_embedder"),
                [c, config.joint_attention_dim],
                true,
            )?,
            time_text_embed: TimeTextEmbed::load(
                config,
                &weights.child("time_text_embed"),
                packing,
            )?,
            blocks: (0..config.num_layers)
                .map(|i| DoubleBlock::load(&blocks.child(i), config, packing))
                .collect::<Result<_>>()?,
            single_blocks: (0..config.num_single_layers)
                .map(|i| SingleBlock::load(&single_blocks.child(i), config, packing))
                .collect::<Result<_>>()?,
            norm_out: packing.linear(
                &weights.child("norm_out").child("linear"),
                [2 * c, c],
                true,
            )?,
            proj_out: packing.linear(
                &weights.child("proj_out"),
                [
                    config.patch_size * config.patch_size * config.out_channels,
                    c,
                ],
                true,
            )?,
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// The shape it was made with.
    #[must_use]
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// How many blocks there are, of both kinds: one attention each.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.blocks.len() + self.single_blocks.len()
    }

    /// Local attention for every block.
    #[must_use]
    pub fn attention(&self) -> Vec<Box<dyn Attention>> {
        (0..self.block_count())
            .map(|_| Box::new(Flash) as Box<dyn Attention>)
            .collect()
    }

    /// T5 embeddings `[b, l, joint_attention_dim]` and pooled CLIP embeddings `[b, pooled_projection_dim]` as the
    /// blocks read them.
    ///
    /// # Errors
    /// [`Error::Kernel`] for other shapes.
    pub fn embed_text(
        &self,
        prompt_embeds: &Tensor,
        pooled_prompt_embeds: &Tensor,
    ) -> Result<FluxText> {
        Ok(FluxText {
            context: self
                .context_embedder
                .forward(&prompt_embeds.to_dtype(self.dtype)?)?,
            pooled: self.time_text_embed.text(pooled_prompt_embeds)?,
        })
    }

    /// The predicted velocity `[b, image tokens, out_channels]`, f32.
    ///
    /// `attention` has one entry per block, double blocks first; each keeps its own state from step to step.
    /// `observer` is offered the outputs of the embedders, of every block and of the last norm.
    ///
    /// # Errors
    /// [`Error::Kernel`] for shapes that do not fit each other or the configuration.
    pub fn forward(
        &self,
        input: &FluxInput<'_>,
        attention: &mut [Box<dyn Attention>],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.check(input, attention.len())?;
        let (double_attention, single_attention) = attention.split_at_mut(self.blocks.len());
        let temb_bc = self.time_text_embed.forward(
            input.timestep,
            input.guidance,
            &input.text.pooled,
            observer,
        )?;
        let silu_temb_bc = activation(&temb_bc, Activation::Silu)?;
        let double_modulation = self
            .blocks
            .par_iter()
            .map(|block| block.modulation(&silu_temb_bc))
            .collect::<Result<Vec<_>>>()?;
        let single_modulation = self
            .single_blocks
            .par_iter()
            .map(|block| block.modulation(&silu_temb_bc))
            .collect::<Result<Vec<_>>>()?;

        let mut image_blc = self
            .x_embedder
            .forward(&input.latents.to_dtype(self.dtype)?)?;
        let mut text_blc = input.text.context.clone();
        observer.offer("transformer.x_embedder", &image_blc)?;
        observer.offer("transformer.context_embedder", &text_blc)?;
        for (i, ((block, modulation), attention)) in self
            .blocks
            .iter()
            .zip(&double_modulation)
            .zip(double_attention)
            .enumerate()
        {
            let _span = tracing::debug_span!("block", kind = "double", i).entered();
            [image_blc, text_blc] =
                block.forward(&image_blc, &text_blc, modulation, input.rotary, attention)?;
            text_blc = saturate(text_blc)?;
            let name = format!("block.transformer_blocks.{i}");
            observer.offer(&format!("{name}.hidden_states"), &image_blc)?;
            observer.offer(&format!("{name}.encoder_hidden_states"), &text_blc)?;
        }

        let (text_len, image_len) = (text_blc.dim(1), image_blc.dim(1));
        let mut joint_blc = Tensor::cat(&[text_blc.view(), image_blc.view()], 1)?;
        drop((image_blc, text_blc));
        for (i, ((block, modulation), attention)) in self
            .single_blocks
            .iter()
            .zip(&single_modulation)
            .zip(single_attention)
            .enumerate()
        {
            let _span = tracing::debug_span!("block", kind = "single", i).entered();
            joint_blc = block.forward(&joint_blc, modulation, input.rotary, attention)?;
            joint_blc = saturate(joint_blc)?;
            let name = format!("block.single_transformer_blocks.{i}");
            for (stream, start, len) in [
                ("hidden_states", text_len, image_len),
                ("encoder_hidden_states", 0, text_len),
            ] {
                if observer.wants_tensors() {
                    observer.tensor(&format!("{name}.{stream}"), &|| {
                        Ok(joint_blc.narrow(1, start, len)?)
                    })?;
                }
            }
        }

        // AdaLayerNormContinuous: the scale comes first here.
        let c = self.config.hidden_size();
        let modulation = self.norm_out.forward(&silu_temb_bc)?;
        let image_blc = joint_blc.view().narrow(1, text_len, image_len)?;
        let normed = layer_norm_modulate(
            image_blc,
            chunk(&modulation, 1, c)?,
            chunk(&modulation, 0, c)?,
            EPS,
        )?;
        observer.offer("transformer.norm_out", &normed)?;
        Ok(self.proj_out.forward(&normed.to_dtype(DType::F32)?)?)
    }

    fn check(&self, input: &FluxInput<'_>, attention: usize) -> Result<()> {
        let (batch, text) = (input.latents.dim(0), &input.text.context);
        let expect = |fits: bool, expected: String, got: &dyn std::fmt::Debug| match fits {
            true => Ok(()),
            false => Err(Error::Kernel(xdit_kernels::Error::shape(
                "flux", expected, got,
            ))),
        };
        let image_len = input.rotary.token_count() - input.rotary.text_len();
        expect(
            input.latents.shape() == [batch, image_len, self.config.in_channels],
            format!("latents [b, {image_len}, {}]", self.config.in_channels),
            input.latents,
        )?;
        expect(
            text.shape() == [batch, input.rotary.text_len(), self.config.hidden_size()],
            format!(
                "text of {batch} prompts and {} tokens",
                input.rotary.text_len()
            ),
            text,
        )?;
        expect(
            input.timestep.len() == batch,
            format!("{batch} timesteps"),
            &input.timestep.len(),
        )?;
        if self.time_text_embed.has_guidance() {
            let given = input.guidance.map(<[f32]>::len);
            expect(
                given == Some(batch),
                format!("{batch} guidance scales"),
                &given,
            )?;
        }
        expect(
            attention == self.block_count(),
            format!("{} attentions", self.block_count()),
            &attention,
        )
    }
}

/// `x`, with infinities of f16 brought back to its largest number; diffusers clips the same streams after the same blocks.
fn saturate(x: Tensor) -> Result<Tensor> {
    match x.as_slice::<f16>() {
        Some(values) if values.par_iter().any(|value| value.is_infinite()) => {
            let clipped: Vec<f16> = values
                .par_iter()
                .map(|value| value.clamp(f16::MIN, f16::MAX))
                .collect();
            Ok(Tensor::from_slice(&clipped, x.shape())?.on(x.device()))
        }
        _ => Ok(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_infinities_of_f16_are_clipped() {
        let x = Tensor::from_slice(&[f16::INFINITY, f16::ONE, f16::NEG_INFINITY], [3]).unwrap();
        assert_eq!(saturate(x).unwrap().to_f32_vec(), [65504.0, 1.0, -65504.0]);
        let x = Tensor::from_slice(&[f32::INFINITY], [1]).unwrap();
        assert_eq!(saturate(x).unwrap().to_f32_vec(), [f32::INFINITY]);
    }
}
