//! The transformer of SD3 and SD3.5 (diffusers `models/transformers/transformer_sd3.py`, `SD3Transformer2DModel`).
//!
//! Shapes: b images, l tokens, c channels, p the patch size.

use std::ops::Range;

use xdit_kernels::attention::{Attention, Flash};
use xdit_kernels::linear::Linear;
use xdit_kernels::{DType, Tensor};

use super::blocks::JointBlock;
use super::embeddings::PatchEmbed;
use super::{Sd3Config, Sd3Positions};
use crate::error::{Error, Result};
use crate::files::weights::Scope;
use crate::layers::{Packing, TimeTextEmbed};
use crate::models::dit::{Conditioning, Dit};
use crate::models::skips::Skips;
use crate::observer::Observer;
use crate::quote;

/// An SD3 transformer. It contains only weights, so threads can share it.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor};
/// use xdit_models::ConfigFile;
/// use xdit_models::layers::Packing;
/// use xdit_models::sd3::{Sd3Config, Sd3Input, Sd3Positions, Sd3Transformer};
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"attention_head_dim": 8, "num_attention_heads": 2, "num_layers": 2, "caption_projection_dim": 16,
///     "joint_attention_dim": 8, "pooled_projection_dim": 4, "pos_embed_max_size": 6, "dual_attention_layers": [0]}"#;
/// let config = Sd3Config::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let model = Sd3Transformer::load(&config, &Scope::root(&weights), packing)?;
///
/// let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::cpu());
/// let text = model.embed_text(&zeros(&[1, 3, 8])?, &zeros(&[1, 4])?)?;
/// // Latents of 4 × 4 pixels and 16 channels: 2 × 2 tokens.
/// let positions = Sd3Positions::new(&config, 3, 2, 2)?;
/// let latents = zeros(&[1, 4, 64])?;
/// let input =
///     Sd3Input { latents: &latents, text: &text, timestep: &[1000.0], positions: &positions, skip_layers: &[] };
/// let prediction = model.forward(&input, &mut model.attention(), &mut ())?;
/// assert_eq!(prediction.shape(), [1, 4, 64]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct Sd3Transformer {
    pub(super) config: Sd3Config,
    /// The blocks of this value. The ends below exist together with the first and the last block.
    pub(super) held: Range<usize>,
    pub(super) pos_embed: Option<PatchEmbed>,
    pub(super) context_embedder: Option<Linear>,
    pub(super) time_text_embed: TimeTextEmbed,
    pub(super) blocks: Vec<JointBlock>,
    pub(super) norm_out: Option<Linear>,
    pub(super) proj_out: Option<Linear>,
    pub(super) dtype: DType,
}

/// A prompt in the form that the transformer reads. It is the same in every step.
#[derive(Clone, Debug)]
pub struct Sd3Text {
    /// `[b, l, c]`; a transformer without its first block has no use for it.
    pub(super) context: Option<Tensor>,
    /// `[b, c]`, f32.
    pub(super) pooled: Tensor,
}

/// The arguments of one forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Sd3Input<'a> {
    /// Latent tokens `[b, image tokens, p·p·in_channels]`, (row, column, channel) inside a token.
    pub latents: &'a Tensor,
    /// The prompts.
    pub text: &'a Sd3Text,
    /// One per image: the scheduler's timestep, from 1000 down.
    pub timestep: &'a [f32],
    /// The positions of the tokens. If they cover a part of the tokens, latents and text have the same part.
    pub positions: &'a Sd3Positions,
    /// Blocks that are left out, for skip-layer guidance.
    pub skip_layers: &'a [usize],
}

impl Sd3Transformer {
    /// Loads the transformer of this configuration.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong.
    pub fn load(
        config: &Sd3Config,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        Self::load_blocks(config, 0..config.block_count(), weights, packing)
    }

    /// Loads some consecutive blocks of the transformer. With the first or the last block it also loads the layers before or
    /// after it. It reads no other tensor.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong, [`Error::InvalidRequest`] for blocks that do not exist.
    pub fn load_blocks(
        config: &Sd3Config,
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
        let pos_embed = first
            .then(|| PatchEmbed::load(config, &weights.child("pos_embed"), packing))
            .transpose()?;
        let mut end = |there: bool, scope: Scope<'_>, shape: [usize; 2]| {
            there
                .then(|| packing.linear(&scope, shape, true))
                .transpose()
        };
        let context = [c, config.joint_attention_dim];
        let context_embedder = end(first, weights.child("context_embedder"), context)?;
        let norm_out = weights.child("norm_out").child("linear");
        let norm_out = end(last, norm_out, [2 * c, c])?;
        let proj_out = [config.token_channels()[1], c];
        let proj_out = end(last, weights.child("proj_out"), proj_out)?;
        let time_text_embed = TimeTextEmbed::load(
            [c, config.pooled_projection_dim],
            false,
            &weights.child("time_text_embed"),
            packing,
        )?;
        let blocks = held
            .clone()
            .map(|block| {
                let scope = weights.child("transformer_blocks").child(block);
                JointBlock::load(&scope, config, block, packing)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            held,
            pos_embed,
            context_embedder,
            time_text_embed,
            blocks,
            norm_out,
            proj_out,
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    /// Returns the number of blocks of this value.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.held.len()
    }

    /// Returns whether this value contains these blocks.
    pub(super) fn holds(&self, blocks: &Range<usize>) -> bool {
        self.held.start <= blocks.start && blocks.end <= self.held.end
    }

    /// Returns the number of attentions of these blocks: one each, or two in dual blocks.
    pub(super) fn attentions(&self, blocks: Range<usize>) -> usize {
        blocks.map(|block| self.config.attentions(block)).sum()
    }

    /// Returns local attention for every attention of every block.
    #[must_use]
    pub fn attention(&self) -> Vec<Box<dyn Attention>> {
        (0..self.attentions(self.held.clone()))
            .map(|_| Box::new(Flash) as Box<dyn Attention>)
            .collect()
    }

    /// Converts text embeddings `[b, l, joint_attention_dim]` and pooled ones `[b, pooled_projection_dim]` to the form that the
    /// blocks read.
    ///
    /// # Errors
    /// [`Error::Kernel`] for other shapes.
    pub fn embed_text(
        &self,
        prompt_embeds: &Tensor,
        pooled_prompt_embeds: &Tensor,
    ) -> Result<Sd3Text> {
        let context = match &self.context_embedder {
            // The previous stage sends the text.
            None => None,
            Some(embedder) => Some(embedder.forward(&prompt_embeds.to_dtype(self.dtype)?)?),
        };
        Ok(Sd3Text {
            context,
            pooled: self.time_text_embed.text(pooled_prompt_embeds)?,
        })
    }

    /// Returns the predicted velocity `[b, image tokens, p·p·out_channels]`, f32.
    ///
    /// `attention` has one entry for each time that a block attends, in order (a dual block's joint attention, then the
    /// image's own); each keeps its own state from step to step. `observer` is offered the outputs of the embedders, of
    /// every block and of the last norm.
    ///
    /// # Errors
    /// [`Error::Kernel`] for shapes that do not fit each other or the configuration, or if some blocks are missing in this
    /// value.
    pub fn forward(
        &self,
        input: &Sd3Input<'_>,
        attention: &mut [Box<dyn Attention>],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.check(input)?;
        let blocks = self.held.clone();
        let pooled = &input.text.pooled;
        let modulation = self.modulate(
            blocks.clone(),
            input.timestep,
            pooled,
            input.skip_layers,
            observer,
        )?;
        let conditioning = Conditioning {
            modulation: &modulation,
            places: input.positions,
        };
        let hidden = self.embed(input.latents, input.text, input.positions, observer)?;
        let hidden = self.run_blocks(
            blocks,
            hidden,
            conditioning,
            attention,
            &mut Skips::default(),
            observer,
        )?;
        self.project(&hidden, conditioning, observer)
    }

    fn check(&self, input: &Sd3Input<'_>) -> Result<()> {
        let (batch, text) = (input.latents.dim(0), input.text.context.as_ref());
        let expect = |fits: bool, expected: String, got: &dyn std::fmt::Debug| match fits {
            true => Ok(()),
            false => Err(Error::Kernel(xdit_kernels::Error::shape(
                "sd3", expected, got,
            ))),
        };
        let text_len = input.positions.text_len();
        let image_len = input.positions.token_count() - text_len;
        let [channels, _] = self.config.token_channels();
        expect(
            input.latents.shape() == [batch, image_len, channels],
            format!("latents [b, {image_len}, {channels}]"),
            input.latents,
        )?;
        let expected = [batch, text_len, self.config.hidden_size()];
        expect(
            text.is_some_and(|text| text.shape() == expected),
            format!("text of {batch} prompts and {text_len} tokens"),
            &text,
        )?;
        expect(
            input.timestep.len() == batch,
            format!("{batch} timesteps"),
            &input.timestep.len(),
        )?;
        expect(
            self.held == (0..self.config.block_count()),
            "all blocks".into(),
            &self.held,
        )
    }
}
