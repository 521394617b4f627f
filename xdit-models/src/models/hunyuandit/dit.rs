//! HunyuanDiT as the common pipeline sees it.

use std::ops::Range;

use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::Blocks;

use super::{HunyuanConfig, HunyuanPositions, HunyuanText, HunyuanTransformer, costs};
use crate::error::Result;
use crate::layers::latents;
use crate::models::dit::{Dit, DitShape, Moment, Rows};
use crate::models::hunyuandit::forward::{Context, Modulation};
use crate::models::skips::Skips;
use crate::observer::Observer;

impl DitShape for HunyuanConfig {
    fn block_count(&self) -> usize {
        self.block_count()
    }

    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)> {
        let skips = blocks.iter().filter(|b| self.skip_source(*b).is_some());
        let skips = skips.count();
        vec![("plain", blocks.len() - skips), ("skip", skips)]
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size()
    }

    fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.attention_head_dim]
    }

    fn token_channels(&self) -> usize {
        self.token_channels()
    }

    fn shown_shape(&self, images: usize, [h, w]: [usize; 2]) -> Vec<usize> {
        vec![images, self.in_channels, h, w]
    }

    fn attentions(&self, _: usize) -> [usize; 2] {
        // That to the text is no strategy's affair: its keys are whole on every rank.
        [1, 0]
    }

    fn stream_text(&self, _: usize) -> usize {
        0
    }

    fn text_widths(&self) -> [usize; 2] {
        let widest = self.cross_attention_dim.max(self.cross_attention_dim_t5);
        [widest, self.cross_attention_dim]
    }

    fn text_kv_bytes(&self, dtype: DType) -> u64 {
        let factors = [2, self.text_tokens(), self.hidden_size(), dtype.size()];
        factors
            .iter()
            .fold(1, |bytes: u64, n| bytes.saturating_mul(*n as u64))
    }

    fn block_bytes(&self, block: usize, dtype: DType) -> u64 {
        costs::block_bytes(self, block, dtype)
    }

    fn reader(&self, block: usize) -> Option<usize> {
        self.reader(block)
    }

    fn stage_bytes(&self, blocks: &Blocks, dtype: DType) -> u64 {
        costs::stage_bytes(self, blocks, dtype)
    }

    fn block_flops(&self, block: usize, text: usize, image: usize) -> f64 {
        costs::block_flops(self, block, text, image)
    }

    fn end_flops(&self, image: usize) -> [f64; 2] {
        costs::end_flops(self, image)
    }
}

impl Dit for HunyuanTransformer {
    type Text = HunyuanText;
    type Context = Context;
    type Places = HunyuanPositions;
    type Modulation = Modulation;

    fn shape(&self) -> &dyn DitShape {
        self.config()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn select(text: &HunyuanText, start: usize, len: usize) -> Result<HunyuanText> {
        Ok(HunyuanText {
            tokens_btc: text.tokens_btc.narrow(0, start, len)?,
            extra_bc: text.extra_bc.narrow(0, start, len)?,
        })
    }

    fn with_rows(text: &HunyuanText, _: Option<Rows<'_>>) -> Result<HunyuanText> {
        // Every rank reads the whole text.
        Ok(text.clone())
    }

    fn places(
        &self,
        _: usize,
        [rows, columns]: [usize; 2],
        observer: &mut dyn Observer,
    ) -> Result<HunyuanPositions> {
        let positions = HunyuanPositions::new(&self.config, rows, columns)?;
        observer.offer("image_rotary_emb.cos", positions.cos())?;
        observer.offer("image_rotary_emb.sin", positions.sin())?;
        Ok(positions)
    }

    fn part(
        positions: &HunyuanPositions,
        _: Option<Segment>,
        image: &[(usize, Segment)],
    ) -> Result<HunyuanPositions> {
        positions.part(image)
    }

    fn context(
        &self,
        blocks: &Blocks,
        text: &HunyuanText,
        _: &mut dyn Observer,
    ) -> Result<Context> {
        self.context(blocks, text)
    }

    fn text_kv_len(context: &Context) -> usize {
        context.byte_len()
    }

    fn modulation(
        &self,
        blocks: Range<usize>,
        _: &[usize],
        moment: Moment,
        context: &Context,
        observer: &mut dyn Observer,
    ) -> Result<Modulation> {
        let timestep = vec![moment.timestep; moment.images];
        self.modulation(blocks, &timestep, context, observer)
    }

    fn embed(
        &self,
        latents_blc: &Tensor,
        _: &HunyuanText,
        _: &HunyuanPositions,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.embed(latents_blc, observer)
    }

    fn run_blocks(
        &self,
        blocks: Range<usize>,
        stream_blc: Tensor,
        at: (&Modulation, &HunyuanPositions),
        attention: &mut [Box<dyn Attention>],
        skips: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.run_blocks(blocks, stream_blc, at, attention, skips, observer)
    }

    fn project(
        &self,
        stream_blc: &Tensor,
        (modulation, _): (&Modulation, &HunyuanPositions),
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.project(stream_blc, modulation, observer)
    }

    fn byte_len(&self, blocks: &Blocks) -> usize {
        self.byte_len(blocks)
    }

    fn unpack(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        latents::unpack_nhwc(tokens_blc.view(), size, self.config.patch_size)
    }

    fn shown(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        latents::unpack(tokens_blc.view(), size, self.config.patch_size)
    }

    fn packed(&self, shown: &Tensor) -> Result<Tensor> {
        latents::pack(shown, self.config.patch_size)
    }
}
