//! The interface of a diffusion transformer: single-device code in pieces, without a rank in it.
//!
//! Shapes: b images, l tokens, c channels.

use std::fmt::Debug;
use std::ops::Range;

use xdit_cfg::{Branch, GuidancePlan};
use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::Blocks;

use crate::error::Result;
use crate::models::skips::Skips;
use crate::observer::Observer;

/// What a transformer's configuration says of its shape and its blocks' costs.
pub(crate) trait DitShape: Debug {
    /// Blocks, of all kinds counted through.
    fn block_count(&self) -> usize;
    /// Kinds of blocks, and how many of `blocks` are of each.
    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)>;
    /// Width of the residual stream.
    fn hidden_size(&self) -> usize;
    /// Attention heads, and the width of each.
    fn heads(&self) -> [usize; 2];
    /// Channels of a token of latents, as it comes in.
    fn token_channels(&self) -> usize;
    /// The shape of latents as diffusers holds them between steps ([`Dit::shown`]), of these latent pixels.
    fn shown_shape(&self, images: usize, size: [usize; 2]) -> Vec<usize>;
    /// How many attentions a block has over all tokens, and how many over the image's alone.
    fn attentions(&self, block: usize) -> [usize; 2];
    /// How many of a text's tokens go through the blocks: none where the blocks only read it.
    fn stream_text(&self, text_len: usize) -> usize {
        text_len
    }
    /// Widths of a text's token as the encoders make it, and as the transformer embeds it.
    fn text_widths(&self) -> [usize; 2];
    /// Bytes of the keys and values of a text that a block reads by cross-attention, for one image and one prompt.
    fn text_kv_bytes(&self, _dtype: DType) -> u64 {
        0
    }
    /// Bytes of a block's parameters.
    fn block_bytes(&self, block: usize, dtype: DType) -> u64;
    /// In a U-shaped model, which later block reads the output of this one again.
    fn reader(&self, _block: usize) -> Option<usize> {
        None
    }
    /// Bytes of all parameters that a stage of these blocks computes with.
    fn stage_bytes(&self, blocks: &Blocks, dtype: DType) -> u64;
    /// FLOPs of a block in a step, for one image and one prompt.
    fn block_flops(&self, block: usize, text: usize, image: usize) -> f64;
    /// FLOPs of a step before the first block, and after the last.
    fn end_flops(&self, image: usize) -> [f64; 2];
}

/// What guides a call, of which scales and for which branches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guide {
    /// For models that read the guidance scale.
    pub(crate) embedded: f32,
    /// Classifier-free guidance; a scale of 1 where there is none.
    pub(crate) plan: GuidancePlan,
    /// Blocks that the branch of skip-layer guidance leaves out.
    pub(crate) skipped: Vec<usize>,
}

impl Guide {
    /// Whether a branch leaves a block out.
    pub(crate) fn skips(&self, branch: Branch, block: usize) -> bool {
        branch == Branch::SkipLayers && self.skipped.contains(&block)
    }

    /// The branches that any of `steps` steps wants.
    pub(crate) fn branches(&self, steps: usize) -> &'static [Branch] {
        let all = (0..steps.max(1)).map(|step| self.plan.scales(step, steps).branches());
        all.max_by_key(|branches| branches.len()).unwrap_or(&[])
    }
}

/// A step as the model is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The scheduler's, from 1000 down.
    pub(crate) timestep: f32,
    /// For models that read the guidance scale.
    pub(crate) guidance_scale: f32,
    /// Images in the batch.
    pub(crate) images: usize,
}

/// What blocks and projection read in a step beside the stream.
#[derive(Debug)]
pub(crate) struct Conditioning<'a, M, P> {
    /// Of these blocks, for the step's timestep and the prompt.
    pub(crate) modulation: &'a M,
    /// Where the stream's tokens stand.
    pub(crate) places: &'a P,
}

// Derived, they would ask the same of M and P.
impl<M, P> Clone for Conditioning<'_, M, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, P> Copy for Conditioning<'_, M, P> {}

/// Some rows of a whole text `[b, l, ..]`.
pub(crate) type RowSelection<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// A diffusion transformer, of which maybe only some blocks are held, in the pieces of a forward pass.
///
/// Between the pieces text and image are one stream `[b, text + image, c]`, text first; the text may be absent, where attention
/// has kept its keys and values. Text is stream 0 of attention's [`Segment`]s, the image's parts are the streams after it.
pub(crate) trait Dit: Debug + Send + Sync + 'static {
    /// A prompt as it is read; the same in every step.
    type Text: Clone + Debug + Send + Sync + 'static;
    /// What some blocks keep of a prompt for all steps of an image.
    type Context: Debug;
    /// Where tokens stand.
    type Places: Debug;
    /// What a step's timestep and prompt make of themselves for some blocks.
    type Modulation;

    /// Its shape.
    fn shape(&self) -> &dyn DitShape;

    /// The dtype of the stream.
    fn dtype(&self) -> DType;

    /// Prompts `start..start + len`.
    fn select(text: &Self::Text, start: usize, len: usize) -> Result<Self::Text>;

    /// The same prompts with other rows of their tokens, or with none where they are not computed.
    fn with_rows(text: &Self::Text, rows: Option<RowSelection<'_>>) -> Result<Self::Text>;

    /// Where all tokens of a text and a grid of rows and columns stand.
    fn places(
        &self,
        text_len: usize,
        grid: [usize; 2],
        observer: &mut dyn Observer,
    ) -> Result<Self::Places>;

    /// The places of some: rows of the text, if there are any, and of parts of the image, each a stream with the place of its
    /// first token in the image.
    fn part(
        places: &Self::Places,
        text: Option<Segment>,
        image: &[(usize, Segment)],
    ) -> Result<Self::Places>;

    /// What these blocks read of a prompt in every step: made once an image.
    fn context(
        &self,
        blocks: &Blocks,
        text: &Self::Text,
        observer: &mut dyn Observer,
    ) -> Result<Self::Context>;

    /// Bytes of the keys and values of the text in a context.
    fn text_kv_len(_context: &Self::Context) -> usize {
        0
    }

    /// The modulation of these blocks without those that are skipped, and of what comes after the last.
    fn modulation(
        &self,
        blocks: Range<usize>,
        skipped: &[usize],
        moment: Moment,
        context: &Self::Context,
        observer: &mut dyn Observer,
    ) -> Result<Self::Modulation>;

    /// Latents `[b, l, c]` as tokens of the stream, after the text's if there is any.
    fn embed(
        &self,
        latents_blc: &Tensor,
        text: &Self::Text,
        places: &Self::Places,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// The stream after these blocks, without those that their modulation was made without. `attention` has an entry for each
    /// attention of each block, in order; `skips` has what blocks before these made for these, and gets what these make for
    /// others.
    fn run_blocks(
        &self,
        blocks: Range<usize>,
        stream_blc: Tensor,
        conditioning: Conditioning<'_, Self::Modulation, Self::Places>,
        attention: &mut [Box<dyn Attention>],
        skips: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// The prediction for the stream's image tokens, f32 `[b, l, c]`.
    fn project(
        &self,
        stream_blc: &Tensor,
        conditioning: Conditioning<'_, Self::Modulation, Self::Places>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// Bytes of the parameters that a stage of these blocks computes with.
    fn byte_len(&self, blocks: &Blocks) -> usize;

    /// Tokens `[b, l, c]` as a picture `[b, h, w, c]` of latents.
    fn unpack(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor>;

    /// Tokens as diffusers holds latents between steps, for who watches and as the output.
    fn shown(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor>;

    /// Such latents as tokens `[b, l, c]`: undoes [`shown`](Self::shown).
    fn packed(&self, shown: &Tensor) -> Result<Tensor>;
}
