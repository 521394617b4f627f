//! The interface of a diffusion transformer: single-device code in pieces, without ranks.
//!
//! Shapes: b images, l tokens, c channels.

use std::fmt::Debug;
use std::ops::Range;

use xdit_cfg::{Branch, GuidancePlan};
use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Blocks;

use crate::error::Result;
use crate::models::skips::Skips;
use crate::observer::Observer;

/// The shape of a transformer and the costs of its blocks, from its configuration.
pub(crate) trait DitShape: Debug {
    /// Returns the number of blocks of all kinds.
    fn block_count(&self) -> usize;
    /// Returns the kinds of blocks, and the number of `blocks` of each kind.
    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)>;
    /// Returns the width of the residual stream.
    fn hidden_size(&self) -> usize;
    /// Returns the number of attention heads and the width of each.
    fn heads(&self) -> [usize; 2];
    /// Returns the number of channels of a token of latents.
    fn token_channels(&self) -> usize;
    /// Returns the shape of latents of this size as diffusers holds them between steps ([`Dit::shown`]).
    fn shown_shape(&self, images: usize, size: [usize; 2]) -> Vec<usize>;
    /// Returns how many attentions a block has over all tokens, and how many over those of the image alone.
    fn attentions(&self, block: usize) -> [usize; 2];
    /// Returns how many tokens of a text pass through the blocks: none if the blocks only read the text.
    fn stream_text(&self, text_len: usize) -> usize {
        text_len
    }
    /// Returns the width of a text's token in the output of the encoders, and in the transformer.
    fn text_widths(&self) -> [usize; 2];
    /// Returns the bytes of the keys and values of a text that a block reads by cross-attention, for one image and one prompt.
    fn text_kv_bytes(&self, _dtype: DType) -> u64 {
        0
    }
    /// Returns what a rank holds on a GPU within a block, for one image.
    fn block_rows(&self, block: usize, tokens: RankTokens) -> BlockRows;
    /// Returns the values that modulate all blocks in a step, for one image and one branch of guidance.
    fn modulation_values(&self) -> usize;
    /// Returns the bytes of a token's tables of positions.
    fn position_bytes(&self) -> usize {
        0
    }
    /// Returns the bytes of a block's parameters.
    fn block_bytes(&self, block: usize, dtype: DType) -> u64;
    /// Returns the later block that reads the output of this one again, in a U-shaped model.
    fn reader(&self, _block: usize) -> Option<usize> {
        None
    }
    /// Returns the bytes of all parameters of a stage with these blocks.
    fn stage_bytes(&self, blocks: &Blocks, dtype: DType) -> u64;
    /// Returns the FLOPs of a block in a step, for one image and one prompt.
    fn block_flops(&self, block: usize, text: usize, image: usize) -> f64;
    /// Returns the FLOPs of a step before the first block and after the last.
    fn end_flops(&self, image: usize) -> [f64; 2];
}

/// The tokens of a stream that a rank holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RankTokens {
    pub(crate) text: usize,
    pub(crate) image: usize,
}

impl RankTokens {
    pub(crate) fn all(&self) -> usize {
        self.text.saturating_add(self.image)
    }
}

/// The most rows of the stream's width that are in memory at a time, within a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockRows {
    /// In the layers before attention.
    pub(crate) before: usize,
    /// When attention begins: the streams, queries, keys and values, each a row of each token.
    pub(crate) attention: usize,
    /// In the layers after attention.
    pub(crate) after: usize,
}

/// The guidance of a call: scales and branches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guide {
    /// The guidance scale, for models with this input.
    pub(crate) embedded: f32,
    /// Classifier-free guidance. A scale of 1 is none.
    pub(crate) plan: GuidancePlan,
    /// Blocks that the branch of skip-layer guidance leaves out.
    pub(crate) skipped: Vec<usize>,
}

impl Guide {
    /// Returns whether a branch leaves a block out.
    pub(crate) fn skips(&self, branch: Branch, block: usize) -> bool {
        branch == Branch::SkipLayers && self.skipped.contains(&block)
    }

    /// Returns the branches that any of `steps` steps uses.
    pub(crate) fn branches(&self, steps: usize) -> &'static [Branch] {
        let all = (0..steps.max(1)).map(|step| self.plan.scales(step, steps).branches());
        all.max_by_key(|branches| branches.len()).unwrap_or(&[])
    }
}

/// The inputs of the model that describe a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The timestep of the scheduler, from 1000 down.
    pub(crate) timestep: f32,
    /// The guidance scale, for models with this input.
    pub(crate) guidance_scale: f32,
    /// The number of images in the batch.
    pub(crate) images: usize,
}

/// The inputs of blocks and projection in a step, besides the stream.
#[derive(Debug)]
pub(crate) struct Conditioning<'a, M, P> {
    /// The modulation of these blocks, for the timestep and the prompt.
    pub(crate) modulation: &'a M,
    /// The positions of the stream's tokens.
    pub(crate) places: &'a P,
}

// A derived implementation would require the same of M and P.
impl<M, P> Clone for Conditioning<'_, M, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, P> Copy for Conditioning<'_, M, P> {}

/// A function of one tensor of a text.
pub(crate) type TextMap<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// A function that returns some rows of a whole text `[b, l, ..]`.
pub(crate) type RowSelection<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// A diffusion transformer, or some of its blocks, with a forward pass in pieces.
///
/// Between the pieces, text and image are one stream `[b, text + image, c]`, text first. The text may be absent if attention
/// has kept its keys and values. Text is stream 0 of attention's [`Segment`]s, and the parts of the image are the streams after
/// it.
pub(crate) trait Dit: Debug + Send + Sync + 'static {
    /// A prompt in the form that the blocks read. It is the same in every step.
    type Text: Clone + Debug + Send + Sync + 'static;
    /// The values that some blocks keep of a prompt for all steps of an image.
    type Context: Debug;
    /// The positions of tokens.
    type Places: Debug;
    /// The modulation of some blocks, computed from the timestep and the prompt.
    type Modulation;

    /// Returns the shape of the transformer.
    fn shape(&self) -> &dyn DitShape;

    /// Returns the dtype of the stream.
    fn dtype(&self) -> DType;

    /// Returns the same prompts with `map` of each of their tensors. The first dim of each is that of the prompts.
    fn each(text: &Self::Text, map: TextMap<'_>) -> Result<Self::Text>;

    /// Returns the prompts `start..start + len`.
    fn select(text: &Self::Text, start: usize, len: usize) -> Result<Self::Text> {
        Self::each(text, &|x| Ok(x.narrow(0, start, len)?))
    }

    /// Returns the same prompts with other rows of their tokens, or without tokens if `rows` is `None`.
    fn with_rows(text: &Self::Text, rows: Option<RowSelection<'_>>) -> Result<Self::Text>;

    /// Returns the positions of all tokens of a text and a grid of rows and columns, for work on `device`.
    fn places(
        &self,
        text_len: usize,
        grid: [usize; 2],
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<Self::Places>;

    /// Returns the positions of some tokens: rows of the text, if there are any, and of parts of the image. Each part is a
    /// stream, with the position of its first token in the image.
    fn part(
        places: &Self::Places,
        text: Option<Segment>,
        image: &[(usize, Segment)],
    ) -> Result<Self::Places>;

    /// Returns the values that these blocks read of a prompt in every step. They are computed once per image.
    fn context(
        &self,
        blocks: &Blocks,
        text: &Self::Text,
        observer: &mut dyn Observer,
    ) -> Result<Self::Context>;

    /// Returns the bytes of the keys and values of the text in a context.
    fn text_kv_len(_context: &Self::Context) -> usize {
        0
    }

    /// Returns the modulation of these blocks, except those that are skipped, and of the layers after the last block.
    fn modulation(
        &self,
        blocks: Range<usize>,
        skipped: &[usize],
        moment: Moment,
        context: &Self::Context,
        observer: &mut dyn Observer,
    ) -> Result<Self::Modulation>;

    /// Returns latents `[b, l, c]` as tokens of the stream, after those of the text if there are any.
    fn embed(
        &self,
        latents_blc: &Tensor,
        text: &Self::Text,
        places: &Self::Places,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// Runs these blocks on the stream, except those without modulation. `attention` has an entry for each attention of each
    /// block, in order. `skips` contains outputs of earlier blocks for these, and receives the outputs of these for later ones.
    fn run_blocks(
        &self,
        blocks: Range<usize>,
        stream_blc: Tensor,
        conditioning: Conditioning<'_, Self::Modulation, Self::Places>,
        attention: &mut [Box<dyn Attention>],
        skips: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// Returns the prediction for the image tokens of the stream, f32 `[b, l, c]`.
    fn project(
        &self,
        stream_blc: &Tensor,
        conditioning: Conditioning<'_, Self::Modulation, Self::Places>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// Returns the bytes of the parameters of a stage with these blocks.
    fn byte_len(&self, blocks: &Blocks) -> usize;

    /// Returns tokens `[b, l, c]` as an image `[b, h, w, c]` of latents.
    fn unpack(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor>;

    /// Returns tokens in the layout in which diffusers holds latents between steps, for observers and for the output.
    fn shown(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor>;

    /// Returns such latents as tokens `[b, l, c]`. The inverse of [`shown`](Self::shown).
    fn packed(&self, shown: &Tensor) -> Result<Tensor>;
}
