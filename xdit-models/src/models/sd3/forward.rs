//! A forward pass in pieces, for stages of a pipeline.
//!
//! Shapes: b images, l tokens, c channels. Between the pieces, text and image are one stream `[b, text + image, c]`. The text
//! may be absent if attention has kept its keys and values. The last block does not change the text.

use std::ops::Range;

use xdit_kernels::activation::{Activation, activation};
use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::linear::Linear;
use xdit_kernels::norm::layer_norm_modulate;
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Blocks;

use super::{Sd3Positions, Sd3Text, Sd3Transformer};
use crate::error::{Error, Result};
use crate::layers::{EPS, byte_len, chunk, latents};
use crate::models::dit::{Conditioning, Dit, DitShape, Moment, RowSelection, TextMap};
use crate::models::skips::Skips;
use crate::observer::Observer;
use crate::quote;

/// The modulation of some blocks, computed from timestep and pooled text. It is the same for all tokens of a step.
#[derive(Debug)]
pub(crate) struct Modulation {
    silu_temb_bc: Tensor,
    /// For each block: image and text. `None` if the block is left out.
    blocks: Vec<Option<[Tensor; 2]>>,
}

impl Sd3Transformer {
    /// Computes the modulation of these blocks without those of `skip_layers`, which are then left out. Timesteps are those of
    /// the scheduler, from 1000 down.
    pub(super) fn modulate(
        &self,
        blocks: Range<usize>,
        timestep: &[f32],
        pooled_bc: &Tensor,
        skip_layers: &[usize],
        observer: &mut dyn Observer,
    ) -> Result<Modulation> {
        let temb_bc = self
            .time_text_embed
            .forward(timestep, None, pooled_bc, observer)?;
        let silu_temb_bc = activation(&temb_bc, Activation::Silu)?;
        Ok(Modulation {
            blocks: self.blocks[self.place(&blocks)?]
                .iter()
                .zip(blocks)
                .map(|(block, i)| match skip_layers.contains(&i) {
                    true => Ok(None),
                    false => block.modulation(&silu_temb_bc).map(Some),
                })
                .collect::<Result<_>>()?,
            silu_temb_bc,
        })
    }

    /// Returns the positions of these blocks among the blocks of this value.
    fn place(&self, blocks: &Range<usize>) -> Result<Range<usize>> {
        match self.holds(blocks) {
            true => Ok(blocks.start - self.held.start..blocks.end - self.held.start),
            false => {
                let expected = format!(
                    "blocks of {}",
                    quote::ranges(std::slice::from_ref(&self.held))
                );
                Err(xdit_kernels::Error::shape("sd3", expected, blocks).into())
            }
        }
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

    fn each(text: &Sd3Text, map: TextMap<'_>) -> Result<Sd3Text> {
        Ok(Sd3Text {
            context: text.context.as_ref().map(map).transpose()?,
            pooled: map(&text.pooled)?,
        })
    }

    fn with_rows(text: &Sd3Text, rows: Option<RowSelection<'_>>) -> Result<Sd3Text> {
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
        _: &Device,
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
        self.modulate(blocks, &timestep, pooled_bc, skipped, observer)
    }

    /// Returns latents `[b, image tokens, p·p·in_channels]` as tokens of the stream, after those of the text if there are any.
    fn embed(
        &self,
        latents_blc: &Tensor,
        text: &Sd3Text,
        positions: &Sd3Positions,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let latents_blc = latents_blc.to_dtype(self.dtype)?;
        let image_blc = held(&self.pos_embed)?.forward(&latents_blc, positions)?;
        observer.offer("transformer.pos_embed", &image_blc)?;
        let Some(text_blc) = &text.context else {
            return Ok(image_blc);
        };
        observer.offer("transformer.context_embedder", text_blc)?;
        Ok(Tensor::cat(&[text_blc.view(), image_blc.view()], 1)?)
    }

    /// Runs these blocks on the stream, except those without modulation. `attention` has an entry for each attention of each
    /// block, also of those that are left out.
    fn run_blocks(
        &self,
        blocks: Range<usize>,
        stream_blc: Tensor,
        conditioning: Conditioning<'_, Modulation, Sd3Positions>,
        mut attention: &mut [Box<dyn Attention>],
        _: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Conditioning {
            modulation,
            places: positions,
        } = conditioning;
        let held = self.place(&blocks)?;
        let expected = self.attentions(blocks.clone());
        if attention.len() != expected || modulation.blocks.len() != blocks.len() {
            let expected = format!("{expected} attentions, {} modulations", blocks.len());
            let got = [attention.len(), modulation.blocks.len()];
            return Err(xdit_kernels::Error::shape("sd3", expected, got).into());
        }
        let text_len = positions.text_len();
        let image_len = positions.token_count() - text_len;
        let has_text = positions.segments().iter().any(|part| part.stream == 0);
        let mut text_blc = match has_text {
            true => Some(stream_blc.narrow(1, 0, text_len)?),
            false => None,
        };
        let mut image_blc = match has_text {
            true => stream_blc.narrow(1, text_len, image_len)?,
            false => stream_blc,
        };
        for (i, (block, modulation)) in blocks.zip(self.blocks[held].iter().zip(&modulation.blocks))
        {
            let (own, rest) = attention.split_at_mut(self.config.attentions(i));
            attention = rest;
            let Some(modulation) = modulation else {
                continue;
            };
            let _span = tracing::debug_span!("block", kind = "joint", i).entered();
            (image_blc, text_blc) =
                block.forward(&image_blc, text_blc.as_ref(), modulation, positions, own)?;
            let name = format!("block.transformer_blocks.{i}");
            observer.offer(&format!("{name}.hidden_states"), &image_blc)?;
            if let Some(text_blc) = text_blc
                .as_ref()
                .filter(|_| !self.config.is_context_pre_only(i))
            {
                observer.offer(&format!("{name}.encoder_hidden_states"), text_blc)?;
            }
        }
        match text_blc {
            None => Ok(image_blc),
            Some(text_blc) => Ok(Tensor::cat(&[text_blc.view(), image_blc.view()], 1)?),
        }
    }

    /// Returns the velocity `[b, image tokens, p·p·out_channels]`, f32, of the stream.
    fn project(
        &self,
        stream_blc: &Tensor,
        conditioning: Conditioning<'_, Modulation, Sd3Positions>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Conditioning {
            modulation,
            places: positions,
        } = conditioning;
        // AdaLayerNormContinuous: the scale comes first here.
        let c = self.config.hidden_size();
        let modulation = held(&self.norm_out)?.forward(&modulation.silu_temb_bc)?;
        let text_len = positions.text_len();
        let image_len = stream_blc.dim(1) - text_len;
        let image_blc = stream_blc.view().narrow(1, text_len, image_len)?;
        let (shift, scale) = (chunk(&modulation, 1, c)?, chunk(&modulation, 0, c)?);
        let normed = layer_norm_modulate(image_blc, shift, scale, EPS)?;
        observer.offer("transformer.norm_out", &normed)?;
        Ok(held(&self.proj_out)?.forward(&normed.to_dtype(DType::F32)?)?)
    }

    /// Returns the bytes of the parameters of a stage with these blocks, without the position table, which stays in the file.
    fn byte_len(&self, blocks: &Blocks) -> usize {
        let (first, last) = (
            blocks.contains(0),
            blocks.contains(self.config.block_count() - 1),
        );
        let patch_proj = self.pos_embed.as_ref().map(|embed| &embed.proj);
        let front = [patch_proj, self.context_embedder.as_ref()].map(|end| end.filter(|_| first));
        let back = [&self.norm_out, &self.proj_out].map(|end| end.as_ref().filter(|_| last));
        let ends: Vec<&Linear> = front.into_iter().chain(back).flatten().collect();
        let held = self.held.clone().zip(&self.blocks);
        let blocks = held.filter(|(i, _)| blocks.contains(*i));
        let blocks: usize = blocks.map(|(_, block)| block.byte_len()).sum();
        byte_len(&ends, &[]) + self.time_text_embed.byte_len() + blocks
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
fn held<T>(end: &Option<T>) -> Result<&T> {
    end.as_ref().ok_or_else(|| {
        Error::Kernel(xdit_kernels::Error::shape(
            "sd3",
            "a stage that holds this end of the transformer",
            format_args!("one that does not"),
        ))
    })
}
