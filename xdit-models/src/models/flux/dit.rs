//! Flux as the common pipeline sees it.

use std::ops::Range;

use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::Blocks;

use super::{FluxConfig, FluxText, FluxTransformer, RotaryTables, costs, latents};
use crate::error::Result;
use crate::models::dit::{Dit, DitShape, Moment, Rows};
use crate::models::flux::forward::Modulation;
use crate::models::skips::Skips;
use crate::observer::Observer;

impl DitShape for FluxConfig {
    fn block_count(&self) -> usize {
        self.block_count()
    }

    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)> {
        let double = blocks
            .iter()
            .filter(|block| *block < self.num_layers)
            .count();
        vec![("double", double), ("single", blocks.len() - double)]
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size()
    }

    fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.attention_head_dim]
    }

    fn token_channels(&self) -> usize {
        self.in_channels
    }

    fn shown_shape(&self, images: usize, [h, w]: [usize; 2]) -> Vec<usize> {
        vec![images, h / 2 * (w / 2), self.in_channels]
    }

    fn attentions(&self, _: usize) -> [usize; 2] {
        [1, 0]
    }

    fn text_widths(&self) -> [usize; 2] {
        [self.joint_attention_dim, self.hidden_size()]
    }

    fn block_bytes(&self, block: usize, dtype: DType) -> u64 {
        costs::block_bytes(self, block, dtype)
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

impl Dit for FluxTransformer {
    type Text = FluxText;
    /// The pooled text, `[b, c]`.
    type Context = Tensor;
    type Places = RotaryTables;
    type Modulation = Modulation;

    fn shape(&self) -> &dyn DitShape {
        self.config()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn select(text: &FluxText, start: usize, len: usize) -> Result<FluxText> {
        text.select(start, len)
    }

    fn with_rows(text: &FluxText, rows: Option<Rows<'_>>) -> Result<FluxText> {
        match rows {
            Some(rows) => text.with_rows(rows),
            None => Ok(text.without_context()),
        }
    }

    fn places(
        &self,
        text_len: usize,
        [rows, columns]: [usize; 2],
        observer: &mut dyn Observer,
    ) -> Result<RotaryTables> {
        let rotary = RotaryTables::new(&self.config.axes_dims_rope, text_len, rows, columns)?;
        observer.offer("image_rotary_emb.cos", rotary.cos())?;
        observer.offer("image_rotary_emb.sin", rotary.sin())?;
        Ok(rotary)
    }

    fn part(
        places: &RotaryTables,
        text: Option<Segment>,
        image: &[(usize, Segment)],
    ) -> Result<RotaryTables> {
        places.part(text, image)
    }

    fn context(&self, _: &Blocks, text: &FluxText, _: &mut dyn Observer) -> Result<Tensor> {
        Ok(text.pooled.clone())
    }

    fn modulation(
        &self,
        blocks: Range<usize>,
        _: &[usize],
        moment: Moment,
        pooled_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Modulation> {
        self.modulation(
            blocks,
            &vec![moment.timestep / 1000.0; moment.images],
            Some(&vec![moment.guidance_scale; moment.images]),
            pooled_bc,
            observer,
        )
    }

    fn embed(
        &self,
        latents_blc: &Tensor,
        text: &FluxText,
        _: &RotaryTables,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.embed(latents_blc, text, observer)
    }

    fn run_blocks(
        &self,
        blocks: Range<usize>,
        stream_blc: Tensor,
        (modulation, rotary): (&Modulation, &RotaryTables),
        attention: &mut [Box<dyn Attention>],
        _: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.run_blocks(blocks, stream_blc, modulation, rotary, attention, observer)
    }

    fn project(
        &self,
        stream_blc: &Tensor,
        (modulation, rotary): (&Modulation, &RotaryTables),
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.project(stream_blc, rotary.text_len(), modulation, observer)
    }

    fn byte_len(&self, blocks: &Blocks) -> usize {
        self.byte_len(blocks)
    }

    fn unpack(&self, tokens_blc: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        latents::unpack_nhwc(tokens_blc.view(), size)
    }

    fn shown(&self, tokens_blc: &Tensor, _: [usize; 2]) -> Result<Tensor> {
        Ok(tokens_blc.clone())
    }

    fn packed(&self, shown: &Tensor) -> Result<Tensor> {
        Ok(shown.clone())
    }
}
