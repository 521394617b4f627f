//! Stable Diffusion 3 as the common pipeline sees it.

use std::ops::Range;

use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::Blocks;

use super::{Sd3Config, Sd3Positions, Sd3Text, Sd3Transformer, costs};
use crate::error::Result;
use crate::layers::latents;
use crate::models::dit::{Dit, DitShape, Moment, Rows};
use crate::models::sd3::forward::Modulation;
use crate::models::skips::Skips;
use crate::observer::Observer;

impl DitShape for Sd3Config {
    fn block_count(&self) -> usize {
        self.block_count()
    }

    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)> {
        let dual = blocks.iter().filter(|block| self.is_dual(*block)).count();
        match self.dual_attention_layers.is_empty() {
            true => vec![("joint", blocks.len())],
            false => vec![("dual", dual), ("joint", blocks.len() - dual)],
        }
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size()
    }

    fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.attention_head_dim]
    }

    fn token_channels(&self) -> usize {
        self.token_channels()[0]
    }

    fn shown_shape(&self, images: usize, [h, w]: [usize; 2]) -> Vec<usize> {
        vec![images, self.in_channels, h, w]
    }

    fn attentions(&self, block: usize) -> [usize; 2] {
        [1, usize::from(self.is_dual(block))]
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

impl Dit for Sd3Transformer {
    type Text = Sd3Text;
    /// The pooled text, `[b, c]`.
    type Context = Tensor;
    type Places = Sd3Positions;
    type Modulation = Modulation;

    fn shape(&self) -> &dyn DitShape {
        self.config()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn select(text: &Sd3Text, start: usize, len: usize) -> Result<Sd3Text> {
        let narrow = |context: &Tensor| Ok::<_, crate::Error>(context.narrow(0, start, len)?);
        Ok(Sd3Text {
            context: text.context.as_ref().map(narrow).transpose()?,
            pooled: text.pooled.narrow(0, start, len)?,
        })
    }

    fn with_rows(text: &Sd3Text, rows: Option<Rows<'_>>) -> Result<Sd3Text> {
        let context = text.context.as_ref().zip(rows);
        Ok(Sd3Text {
            context: context.map(|(context, rows)| rows(context)).transpose()?,
            pooled: text.pooled.clone(),
        })
    }

    fn places(
        &self,
        text_len: usize,
        [rows, columns]: [usize; 2],
        _: &mut dyn Observer,
    ) -> Result<Sd3Positions> {
        Sd3Positions::new(&self.config, text_len, rows, columns)
    }

    fn part(
        places: &Sd3Positions,
        text: Option<Segment>,
        image: &[(usize, Segment)],
    ) -> Result<Sd3Positions> {
        places.part(text, image)
    }

    fn context(&self, _: &Blocks, text: &Sd3Text, _: &mut dyn Observer) -> Result<Tensor> {
        Ok(text.pooled.clone())
    }

    fn modulation(
        &self,
        blocks: Range<usize>,
        skipped: &[usize],
        moment: Moment,
        pooled_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Modulation> {
        let timestep = vec![moment.timestep; moment.images];
        self.modulation(blocks, &timestep, pooled_bc, skipped, observer)
    }

    fn embed(
        &self,
        latents_blc: &Tensor,
        text: &Sd3Text,
        positions: &Sd3Positions,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.embed(latents_blc, text, positions, observer)
    }

    fn run_blocks(
        &self,
        blocks: Range<usize>,
        stream_blc: Tensor,
        (modulation, positions): (&Modulation, &Sd3Positions),
        attention: &mut [Box<dyn Attention>],
        _: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.run_blocks(
            blocks, stream_blc, modulation, positions, attention, observer,
        )
    }

    fn project(
        &self,
        stream_blc: &Tensor,
        (modulation, positions): (&Modulation, &Sd3Positions),
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.project(stream_blc, positions.text_len(), modulation, observer)
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
