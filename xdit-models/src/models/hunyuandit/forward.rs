//! A forward pass in pieces, for stages of a pipeline.
//!
//! Shapes: b images, l image tokens, t text tokens, c channels. The stream between the pieces is the image's tokens
//! `[b, l, c]`; text is read by cross-attention and never in it.

use std::ops::Range;
use std::sync::Arc;

use xdit_kernels::activation::{Activation, activation};
use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::linear::Linear;
use xdit_kernels::norm::layer_norm_modulate;
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Blocks;

use super::blocks::{BlockConditioning, HunyuanBlock, TextKv};
use super::transformer::expect;
use super::{HunyuanPositions, HunyuanText, HunyuanTransformer};
use crate::error::Result;
use crate::layers::{EPS, byte_len, chunk, latents, rows_of};
use crate::models::dit::{Conditioning, Dit, DitShape, Moment, RowSelection, TextMap};
use crate::models::skips::Skips;
use crate::observer::Observer;
use crate::quote;

/// The values that some blocks keep of a prompt for all steps and patches of an image. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    blocks: Blocks,
    /// Keys and values of the text in each of the blocks.
    text: Arc<Vec<TextKv>>,
    extra_bc: Tensor,
}

/// The modulation of some blocks, computed from timestep and prompt. It is the same for all tokens of a step.
#[derive(Debug)]
pub(crate) struct Modulation {
    silu_temb_bc: Tensor,
    /// For each block, added after its first norm.
    shifts: Vec<Tensor>,
    context: Context,
}

impl HunyuanTransformer {
    /// The tokens of BERT, then those of mT5. Learned vectors replace those of padding.
    pub(super) fn padded(&self, [bert, t5]: [&Tensor; 2], masks: [&[bool]; 2]) -> Result<Tensor> {
        let (b, len, c) = (bert.dim(0), self.config.text_tokens(), bert.dim(2));
        let both = Tensor::cat(&[bert.view(), t5.view()], 1)?.reshape([b * len, c])?;
        let padding = self.text_embedding_padding.to_dtype(self.dtype)?;
        let table = Tensor::cat(&[both.view(), padding.view()], 0)?;
        let lens = [bert.dim(1), t5.dim(1)];
        let rows: Vec<u32> = (0..b)
            .flat_map(|image| (0..len).map(move |token| (image, token)))
            .map(|(image, token)| {
                let kept = match token.checked_sub(lens[0]) {
                    None => masks[0][image * lens[0] + token],
                    Some(token) => masks[1][image * lens[1] + token],
                };
                // The sum does not overflow: a tensor with these tokens is in memory.
                (if kept {
                    image * len + token
                } else {
                    b * len + token
                }) as u32
            })
            .collect();
        Ok(rows_of(&table, &rows)?.reshape([b, len, c])?)
    }

    /// Computes the modulation of these blocks. Timesteps are those of the scheduler, from 1000 down.
    pub(super) fn modulate(
        &self,
        blocks: Range<usize>,
        timestep: &[f32],
        context: &Context,
        observer: &mut dyn Observer,
    ) -> Result<Modulation> {
        let temb_bc = self
            .time_extra_emb
            .forward(timestep, &context.extra_bc, observer)?;
        let silu_temb_bc = activation(&temb_bc, Activation::Silu)?;
        let shifts = self.blocks[self.place(&blocks)?].iter();
        Ok(Modulation {
            shifts: shifts
                .map(|block| block.shift(&silu_temb_bc))
                .collect::<Result<_>>()?,
            silu_temb_bc,
            context: context.clone(),
        })
    }

    /// Returns the positions of these blocks among the blocks of this value.
    fn place(&self, blocks: &Range<usize>) -> Result<Range<usize>> {
        let place = self.held.place(blocks);
        let expected = || format!("blocks of {}", quote::ranges(self.held.ranges()));
        expect(place.is_some(), expected(), blocks)?;
        Ok(place.unwrap_or_default())
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

    fn each(text: &HunyuanText, map: TextMap<'_>) -> Result<HunyuanText> {
        Ok(HunyuanText {
            tokens_btc: map(&text.tokens_btc)?,
            extra_bc: map(&text.extra_bc)?,
        })
    }

    fn with_rows(text: &HunyuanText, _: Option<RowSelection<'_>>) -> Result<HunyuanText> {
        // Every rank reads the whole text.
        Ok(text.clone())
    }

    fn places(
        &self,
        _: usize,
        [rows, columns]: [usize; 2],
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<HunyuanPositions> {
        let positions = HunyuanPositions::new(&self.config, rows, columns, device)?;
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

    /// Computes the values that these blocks keep of these prompts.
    fn context(
        &self,
        blocks: &Blocks,
        text: &HunyuanText,
        _: &mut dyn Observer,
    ) -> Result<Context> {
        let kv = |block: &HunyuanBlock| block.text_kv(&text.tokens_btc);
        let mut all = Vec::with_capacity(blocks.len());
        for range in blocks.ranges() {
            let held = self.blocks[self.place(range)?].iter();
            all.extend(held.map(kv).collect::<Result<Vec<_>>>()?);
        }
        Ok(Context {
            blocks: blocks.clone(),
            text: Arc::new(all),
            extra_bc: text.extra_bc.clone(),
        })
    }

    fn text_kv_len(context: &Context) -> usize {
        context.text.iter().map(TextKv::byte_len).sum()
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
        self.modulate(blocks, &timestep, context, observer)
    }

    /// Returns latents `[b, l, p·p·in_channels]` as tokens of the stream.
    fn embed(
        &self,
        latents_blc: &Tensor,
        _: &HunyuanText,
        _: &HunyuanPositions,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let image_blc = held(&self.pos_embed)?.forward(&latents_blc.to_dtype(self.dtype)?)?;
        observer.offer("transformer.pos_embed", &image_blc)?;
        Ok(image_blc)
    }

    /// Runs these blocks on the stream. `attention` has an entry for each. `skips` contains the outputs of earlier blocks that
    /// they read.
    fn run_blocks(
        &self,
        blocks: Range<usize>,
        mut stream_blc: Tensor,
        conditioning: Conditioning<'_, Modulation, HunyuanPositions>,
        attention: &mut [Box<dyn Attention>],
        skips: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Conditioning {
            modulation,
            places: positions,
        } = conditioning;
        let place = self.place(&blocks)?;
        let shown = quote::ranges(std::slice::from_ref(&blocks));
        expect(
            attention.len() == blocks.len() && modulation.shifts.len() == blocks.len(),
            format!("an attention and a shift for each of {shown}"),
            &[attention.len(), modulation.shifts.len()],
        )?;
        let Context {
            blocks: known,
            text,
            ..
        } = &modulation.context;
        let rows = known.place(&blocks);
        let expected = format!("a context of {shown}");
        expect(rows.is_some(), expected, &known.ranges())?;
        let text = &text[rows.unwrap_or_default()];
        for (n, (i, block)) in blocks.zip(&self.blocks[place]).enumerate() {
            let _span = tracing::debug_span!("block", kind = "cross", i).entered();
            let name = format!("block.blocks.{i}");
            if let Some(source) = self.config.skip_source(i) {
                let skip_blc = skips.take(source)?;
                stream_blc = block.join(&stream_blc, &skip_blc, &mut *attention[n])?;
                observer.offer(&format!("{name}.skip_linear"), &stream_blc)?;
            }
            let conditioning = BlockConditioning {
                shift_bc: &modulation.shifts[n],
                text: &text[n],
            };
            stream_blc = block.forward(&stream_blc, conditioning, positions, &mut *attention[n])?;
            observer.offer(&format!("{name}.hidden_states"), &stream_blc)?;
            if self.config.reader(i).is_some() {
                skips.put(i, stream_blc.clone());
            }
        }
        Ok(stream_blc)
    }

    /// Returns the predicted mean `[b, l, p·p·in_channels]`, f32, of the stream.
    fn project(
        &self,
        stream_blc: &Tensor,
        conditioning: Conditioning<'_, Modulation, HunyuanPositions>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Conditioning { modulation, .. } = conditioning;
        // AdaLayerNormContinuous: the scale comes first here.
        let c = self.config.hidden_size();
        let modulation = held(&self.norm_out)?.forward(&modulation.silu_temb_bc)?;
        let (shift, scale) = (chunk(&modulation, 1, c)?, chunk(&modulation, 0, c)?);
        let normed = layer_norm_modulate(stream_blc, shift, scale, EPS)?;
        observer.offer("transformer.norm_out", &normed)?;
        Ok(held(&self.proj_out)?.forward(&normed.to_dtype(DType::F32)?)?)
    }

    /// Returns the bytes of the parameters of a stage with these blocks.
    fn byte_len(&self, blocks: &Blocks) -> usize {
        let first = self.pos_embed.as_ref().filter(|_| blocks.contains(0));
        let last = blocks.contains(self.config.block_count() - 1);
        let back = [&self.norm_out, &self.proj_out].map(|end| end.as_ref().filter(|_| last));
        let ends: Vec<&Linear> = first
            .into_iter()
            .chain(back.into_iter().flatten())
            .collect();
        let held = self.held.iter().zip(&self.blocks);
        let inside = held.filter(|(i, _)| blocks.contains(*i));
        byte_len(&ends, &[&self.text_embedding_padding])
            + self.time_extra_emb.byte_len()
            + self.text_embedder.byte_len()
            + inside.map(|(_, block)| block.byte_len()).sum::<usize>()
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

/// An end of the transformer. Only the stage at that end has it.
fn held(end: &Option<Linear>) -> Result<&Linear> {
    end.as_ref().ok_or_else(|| {
        xdit_kernels::Error::shape(
            "hunyuandit",
            "a stage that holds this end of the transformer",
            format_args!("one that does not"),
        )
        .into()
    })
}
