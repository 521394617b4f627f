//! The Flux transformer (diffusers `models/transformers/transformer_flux.py`, `FluxTransformer2DModel`).
//!
//! Shapes: b images, l tokens, c channels.

use std::ops::Range;

use xdit_kernels::attention::{Attention, Flash};
use xdit_kernels::linear::Linear;
use xdit_kernels::{DType, Tensor};

use super::blocks::{DoubleBlock, SingleBlock};
use super::{FluxConfig, RotaryTables};
use crate::error::{Error, Result};
use crate::files::weights::Scope;
use crate::layers::{Packing, TimeTextEmbed};
use crate::models::dit::{Conditioning, Dit};
use crate::models::skips::Skips;
use crate::observer::Observer;
use crate::quote;

/// A Flux transformer. It contains only weights, so threads can share it.
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
/// let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::cpu());
/// let text = model.embed_text(&zeros(&[1, 3, 8])?, &zeros(&[1, 4])?)?;
/// let rotary = RotaryTables::new(&config.axes_dims_rope, 3, 2, 2, &Device::cpu())?;
/// let latents = zeros(&[1, 4, 64])?;
/// let input = FluxInput { latents: &latents, text: &text, timestep: &[1.0], guidance: None, rotary: &rotary };
/// let prediction = model.forward(&input, &mut model.attention(), &mut ())?;
/// assert_eq!(prediction.shape(), [1, 4, 64]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct FluxTransformer {
    pub(super) config: FluxConfig,
    /// The blocks of this value, of both kinds. The ends below exist together with the first and the last block.
    pub(super) held: Range<usize>,
    pub(super) x_embedder: Option<Linear>,
    pub(super) context_embedder: Option<Linear>,
    pub(super) time_text_embed: TimeTextEmbed,
    pub(super) blocks: Vec<DoubleBlock>,
    pub(super) single_blocks: Vec<SingleBlock>,
    pub(super) norm_out: Option<Linear>,
    pub(super) proj_out: Option<Linear>,
    pub(super) dtype: DType,
}

/// A prompt in the form that the transformer reads. It is the same in every step.
#[derive(Clone, Debug)]
pub struct FluxText {
    /// `[b, l, c]`; a transformer without its first block has no use for it.
    pub(super) context: Option<Tensor>,
    /// `[b, c]`, f32.
    pub(super) pooled: Tensor,
}

/// The arguments of one forward pass.
#[derive(Clone, Copy, Debug)]
pub struct FluxInput<'a> {
    /// Packed latents: `[b, image tokens, in_channels]`.
    pub latents: &'a Tensor,
    /// The prompts.
    pub text: &'a FluxText,
    /// One per image: the scheduler's timestep divided by 1000, from 1 down.
    pub timestep: &'a [f32],
    /// One per image. Models with `guidance_embeds` need it, others ignore it.
    pub guidance: Option<&'a [f32]>,
    /// The rotary tables of text and image. If they cover a part of the tokens, latents and text have the same part.
    pub rotary: &'a RotaryTables,
}

impl FluxTransformer {
    /// Loads the transformer of this configuration.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong.
    pub fn load(
        config: &FluxConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        Self::load_blocks(config, 0..config.block_count(), weights, packing)
    }

    /// Loads some consecutive blocks of the transformer, counted from the first double block. With the first or the last block
    /// it also loads the layers before or after it. It reads no other tensor.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong, [`Error::InvalidRequest`] for blocks that do not exist.
    pub fn load_blocks(
        config: &FluxConfig,
        held: Range<usize>,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (c, count) = (config.hidden_size(), config.block_count());
        if held.is_empty() || held.end > count {
            let allowed = format!("some of 0..{count}");
            return Err(Error::invalid("blocks", quote::ranges(&[held]), allowed));
        }
        let (first, last) = (held.start == 0, held.end == count);
        let mut end = |there: bool, scope: Scope<'_>, shape: [usize; 2]| {
            there
                .then(|| packing.linear(&scope, shape, true))
                .transpose()
        };
        let patch = config.patch_size * config.patch_size;
        let x_embedder = end(first, weights.child("x_embedder"), [c, config.in_channels])?;
        let context = [c, config.joint_attention_dim];
        let context_embedder = end(first, weights.child("context_embedder"), context)?;
        let norm_out = weights.child("norm_out").child("linear");
        let norm_out = end(last, norm_out, [2 * c, c])?;
        let proj_out = [patch * config.out_channels, c];
        let proj_out = end(last, weights.child("proj_out"), proj_out)?;
        let time_text_embed = TimeTextEmbed::load(
            [c, config.pooled_projection_dim],
            config.guidance_embeds,
            &weights.child("time_text_embed"),
            packing,
        )?;
        let (mut blocks, mut single_blocks) = (Vec::new(), Vec::new());
        for block in held.clone() {
            match block.checked_sub(config.num_layers) {
                None => {
                    let scope = weights.child("transformer_blocks").child(block);
                    blocks.push(DoubleBlock::load(&scope, config, packing)?);
                }
                Some(single) => {
                    let scope = weights.child("single_transformer_blocks").child(single);
                    single_blocks.push(SingleBlock::load(&scope, config, packing)?);
                }
            }
        }
        Ok(Self {
            held,
            x_embedder,
            context_embedder,
            time_text_embed,
            blocks,
            single_blocks,
            norm_out,
            proj_out,
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// Returns the number of blocks of this value, of both kinds. Each has one attention.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.held.len()
    }

    /// Returns local attention for every block.
    #[must_use]
    pub fn attention(&self) -> Vec<Box<dyn Attention>> {
        (0..self.block_count())
            .map(|_| Box::new(Flash) as Box<dyn Attention>)
            .collect()
    }

    /// Converts T5 embeddings `[b, l, joint_attention_dim]` and pooled CLIP embeddings `[b, pooled_projection_dim]` to the form
    /// that the blocks read.
    ///
    /// # Errors
    /// [`Error::Kernel`] for other shapes.
    pub fn embed_text(
        &self,
        prompt_embeds: &Tensor,
        pooled_prompt_embeds: &Tensor,
    ) -> Result<FluxText> {
        let context = match &self.context_embedder {
            // The previous stage sends the text.
            None => None,
            Some(embedder) => Some(embedder.forward(&prompt_embeds.to_dtype(self.dtype)?)?),
        };
        Ok(FluxText {
            context,
            pooled: self.time_text_embed.text(pooled_prompt_embeds)?,
        })
    }

    /// Returns the predicted velocity `[b, image tokens, out_channels]`, f32.
    ///
    /// `attention` has one entry per block, double blocks first; each keeps its own state from step to step.
    /// `observer` is offered the outputs of the embedders, of every block and of the last norm.
    ///
    /// # Errors
    /// [`Error::Kernel`] for shapes that do not fit each other or the configuration, or if some blocks are missing in this
    /// value.
    pub fn forward(
        &self,
        input: &FluxInput<'_>,
        attention: &mut [Box<dyn Attention>],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.check(input, attention.len())?;
        let modulation = self.modulate(
            self.held.clone(),
            input.timestep,
            input.guidance,
            &input.text.pooled,
            observer,
        )?;
        let conditioning = Conditioning {
            modulation: &modulation,
            places: input.rotary,
        };
        let hidden = self.embed(input.latents, input.text, input.rotary, observer)?;
        let hidden = self.run_blocks(
            self.held.clone(),
            hidden,
            conditioning,
            attention,
            &mut Skips::default(),
            observer,
        )?;
        self.project(&hidden, conditioning, observer)
    }

    fn check(&self, input: &FluxInput<'_>, attention: usize) -> Result<()> {
        let (batch, text) = (input.latents.dim(0), input.text.context.as_ref());
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
            text.is_some_and(|text| {
                text.shape() == [batch, input.rotary.text_len(), self.config.hidden_size()]
            }),
            format!(
                "text of {batch} prompts and {} tokens",
                input.rotary.text_len()
            ),
            &text,
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
            self.held == (0..self.config.block_count()),
            "all blocks".into(),
            &self.held,
        )?;
        expect(
            attention == self.block_count(),
            format!("{} attentions", self.block_count()),
            &attention,
        )
    }
}
