//! The transformer of HunyuanDiT (diffusers `models/transformers/hunyuan_transformer_2d.py`, `HunyuanDiT2DModel`).
//!
//! Shapes: b images, l image tokens, t text tokens, c channels, p the patch size.

use xdit_kernels::attention::{Attention, Flash};
use xdit_kernels::linear::Linear;
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::Blocks;

use super::blocks::HunyuanBlock;
use super::embeddings::{SIZE_NUMBERS, TimeExtraEmbed};
use super::{HunyuanConfig, HunyuanPositions};
use crate::error::{Error, Result};
use crate::files::weights::Scope;
use crate::layers::{Mlp, Packing};
use crate::models::dit::{Conditioning, Dit};
use crate::models::skips::Skips;
use crate::observer::Observer;
use crate::quote;

/// A HunyuanDiT transformer. It contains only weights, so threads can share it.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor};
/// use xdit_models::ConfigFile;
/// use xdit_models::hunyuandit::{HunyuanConfig, HunyuanInput, HunyuanPositions, HunyuanTransformer};
/// use xdit_models::layers::Packing;
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"attention_head_dim": 8, "num_attention_heads": 2, "hidden_size": 16, "num_layers": 4,
///     "in_channels": 4, "patch_size": 2, "cross_attention_dim": 8, "cross_attention_dim_t5": 16,
///     "pooled_projection_dim": 4, "text_len": 3, "text_len_t5": 5}"#;
/// let config = HunyuanConfig::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let model = HunyuanTransformer::load(&config, &Scope::root(&weights), packing)?;
///
/// let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::cpu());
/// let (bert, t5) = (zeros(&[1, 3, 8])?, zeros(&[1, 5, 16])?);
/// // The prompt has two tokens of BERT and four of mT5; the rest is padding.
/// let masks = [&[true, true, false][..], &[true, true, true, true, false]];
/// let sizes = [1024.0, 1024.0, 1024.0, 1024.0, 0.0, 0.0];
/// let text = model.embed_text([&bert, &t5], masks, &sizes, &mut ())?;
/// // Latents of 4 × 4 pixels and 4 channels: 2 × 2 tokens.
/// let positions = HunyuanPositions::new(&config, 2, 2, &Device::cpu())?;
/// let latents = zeros(&[1, 4, 16])?;
/// let input = HunyuanInput { latents: &latents, text: &text, timestep: &[999.0], positions: &positions };
/// let prediction = model.forward(&input, &mut model.attention(), &mut ())?;
/// assert_eq!(prediction.shape(), [1, 4, 16]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct HunyuanTransformer {
    pub(super) config: HunyuanConfig,
    /// The blocks of this value. The ends below exist together with the first and the last block.
    pub(super) held: Blocks,
    pub(super) pos_embed: Option<Linear>,
    pub(super) time_extra_emb: TimeExtraEmbed,
    pub(super) text_embedder: Mlp,
    /// The learned vectors that replace tokens of padding, `[t, cross_attention_dim]`.
    pub(super) text_embedding_padding: Tensor,
    pub(super) blocks: Vec<HunyuanBlock>,
    pub(super) norm_out: Option<Linear>,
    pub(super) proj_out: Option<Linear>,
    pub(super) dtype: DType,
}

/// A prompt in the form that the transformer reads. It is the same in every step.
#[derive(Clone, Debug)]
pub struct HunyuanText {
    /// The tokens of BERT and mT5, with those of padding replaced, `[b, t, cross_attention_dim]`.
    pub(super) tokens_btc: Tensor,
    /// The vector of mT5's embeddings, sizes and style, which is added to that of the timestep, f32 `[b, c]`.
    pub(super) extra_bc: Tensor,
}

/// The arguments of one forward pass.
#[derive(Clone, Copy, Debug)]
pub struct HunyuanInput<'a> {
    /// Latent tokens `[b, l, p·p·in_channels]`, (row, column, channel) inside a token.
    pub latents: &'a Tensor,
    /// The prompts.
    pub text: &'a HunyuanText,
    /// One per image: the scheduler's timestep, from 1000 down.
    pub timestep: &'a [f32],
    /// The positions of the tokens.
    pub positions: &'a HunyuanPositions,
}

impl HunyuanTransformer {
    /// Loads the transformer of this configuration.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong.
    pub fn load(
        config: &HunyuanConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let all = Blocks::from(0..config.block_count());
        Self::load_blocks(config, &all, weights, packing)
    }

    /// Loads some blocks of the transformer, and the layers for text and timestep, which every stage needs. With the first or
    /// the last block it also loads the layers before or after it. It reads no other tensor.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong, [`Error::InvalidRequest`] for blocks that do not exist.
    pub fn load_blocks(
        config: &HunyuanConfig,
        held: &Blocks,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (c, count) = (config.hidden_size(), config.block_count());
        if held.is_empty() || held.iter().any(|block| block >= count) {
            let allowed = format!("some of 0..{count}");
            return Err(Error::invalid(
                "blocks",
                quote::ranges(held.ranges()),
                allowed,
            ));
        }
        let (text, t5) = (config.cross_attention_dim, config.cross_attention_dim_t5);
        let patches = [c, config.in_channels, config.patch_size];
        let pos_embed = held
            .contains(0)
            .then(|| packing.patches(&weights.child("pos_embed").child("proj"), patches))
            .transpose()?;
        let last = held.contains(count - 1);
        let norm_out = weights.child("norm_out").child("linear");
        let norm_out = last
            .then(|| packing.linear(&norm_out, [2 * c, c], true))
            .transpose()?;
        // Each pixel of a patch has its channels, then the same number for the variance, which is not used.
        let pixels = config.patch_size * config.patch_size;
        let channels = config.in_channels;
        let means = (0..pixels).map(|pixel| 2 * pixel * channels..(2 * pixel + 1) * channels);
        let proj_out = weights.child("proj_out");
        let proj_out = last
            .then(|| packing.linear_rows(&proj_out, [2 * pixels * channels, c], means))
            .transpose()?;
        let blocks = held
            .iter()
            .map(|block| {
                let scope = weights.child("blocks").child(block);
                HunyuanBlock::load(&scope, config, block, packing)
            })
            .collect::<Result<_>>()?;
        let padding = [config.text_tokens(), text];
        Ok(Self {
            held: held.clone(),
            pos_embed,
            time_extra_emb: TimeExtraEmbed::load(
                config,
                &weights.child("time_extra_emb"),
                packing,
            )?,
            text_embedder: Mlp::load(&weights.child("text_embedder"), [t5, 4 * t5, text], packing)?,
            text_embedding_padding: packing.small(weights, "text_embedding_padding", &padding)?,
            blocks,
            norm_out,
            proj_out,
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &HunyuanConfig {
        &self.config
    }

    /// Returns the number of blocks of this value.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.held.len()
    }

    /// Returns local attention for the image's attention to itself in each block.
    #[must_use]
    pub fn attention(&self) -> Vec<Box<dyn Attention>> {
        (0..self.held.len())
            .map(|_| Box::new(Flash) as Box<dyn Attention>)
            .collect()
    }

    /// Converts the embeddings of BERT `[b, text_len, cross_attention_dim]` and of mT5 `[b, text_len_t5,
    /// cross_attention_dim_t5]` to the form that the blocks read. Learned vectors replace the tokens that the masks (`b ·
    /// tokens` each, row by row) do not keep. `sizes` contains, for every image, original height and width, target height and
    /// width, and top and left of the crop. A model without [`HunyuanConfig::style_and_size`] ignores it.
    ///
    /// # Errors
    /// [`Error::Kernel`] for other shapes.
    pub fn embed_text(
        &self,
        [bert, t5]: [&Tensor; 2],
        masks: [&[bool]; 2],
        sizes: &[f32; SIZE_NUMBERS],
        observer: &mut dyn Observer,
    ) -> Result<HunyuanText> {
        let config = &self.config;
        let (lens, b) = ([config.text_len, config.text_len_t5], bert.dim(0));
        let widths = [config.cross_attention_dim, config.cross_attention_dim_t5];
        for (i, embeds) in [bert, t5].into_iter().enumerate() {
            let expected = [b, lens[i], widths[i]];
            expect(
                embeds.shape() == expected && masks[i].len() == b * lens[i],
                format!(
                    "embeddings {} and a mask of their tokens",
                    quote::list(&expected)
                ),
                &(embeds.shape(), masks[i].len()),
            )?;
        }
        let extra_bc = self.time_extra_emb.extra(t5, sizes, observer)?;
        let t5 = self.text_embedder.forward(&t5.to_dtype(self.dtype)?)?;
        let tokens_btc = self.padded([&bert.to_dtype(self.dtype)?, &t5], masks)?;
        observer.offer("transformer.encoder_hidden_states", &tokens_btc)?;
        Ok(HunyuanText {
            tokens_btc,
            extra_bc,
        })
    }

    /// Returns the predicted mean `[b, l, p·p·in_channels]`, f32.
    ///
    /// `attention` has one entry for each block's self-attention, in order; each keeps its own state from step to step.
    /// `observer` is offered the outputs of the embedders, of every block and of the last norm.
    ///
    /// # Errors
    /// [`Error::Kernel`] for shapes that do not fit each other or the configuration, or if some blocks are missing in this
    /// value.
    pub fn forward(
        &self,
        input: &HunyuanInput<'_>,
        attention: &mut [Box<dyn Attention>],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.check(input)?;
        let blocks = 0..self.config.block_count();
        let context = self.context(&self.held, input.text, observer)?;
        let modulation = self.modulate(blocks.clone(), input.timestep, &context, observer)?;
        let conditioning = Conditioning {
            modulation: &modulation,
            places: input.positions,
        };
        let hidden = self.embed(input.latents, input.text, input.positions, observer)?;
        let mut skips = Skips::default();
        let hidden = self.run_blocks(
            blocks,
            hidden,
            conditioning,
            attention,
            &mut skips,
            observer,
        )?;
        self.project(&hidden, conditioning, observer)
    }

    fn check(&self, input: &HunyuanInput<'_>) -> Result<()> {
        let (batch, tokens) = (input.latents.dim(0), input.positions.token_count());
        let channels = self.config.token_channels();
        expect(
            input.latents.shape() == [batch, tokens, channels],
            format!("latents [b, {tokens}, {channels}]"),
            input.latents,
        )?;
        expect(
            input.text.extra_bc.dim(0) == batch,
            format!("text of {batch} prompts"),
            &input.text.tokens_btc,
        )?;
        expect(
            input.timestep.len() == batch,
            format!("{batch} timesteps"),
            &input.timestep.len(),
        )?;
        expect(
            self.held == Blocks::from(0..self.config.block_count()),
            "all blocks".into(),
            &self.held.ranges(),
        )
    }
}

/// Returns an error unless `fits` is true.
pub(super) fn expect(fits: bool, expected: String, got: &dyn std::fmt::Debug) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(Error::Kernel(xdit_kernels::Error::shape(
            "hunyuandit",
            expected,
            got,
        ))),
    }
}
