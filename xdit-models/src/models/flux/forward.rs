//! A forward pass in pieces, for stages of a pipeline.
//!
//! Shapes: b images, l tokens, c channels. Between the pieces, text and image are one stream `[b, text + image, c]`. The text
//! may be absent if attention has kept its keys and values.

use std::ops::Range;

use half::f16;
use xdit_kernels::activation::{Activation, activation};
use xdit_kernels::attention::{Attention, Segment};
use xdit_kernels::elementwise::clamp;
use xdit_kernels::linear::Linear;
use xdit_kernels::norm::layer_norm_modulate;
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Blocks;

use super::{FluxText, FluxTransformer, RotaryTables, latents};
use crate::error::{Error, Result};
use crate::layers::{EPS, byte_len, chunk};
use crate::models::dit::{Conditioning, Dit, DitShape, Moment, RowSelection, TextMap};
use crate::models::skips::Skips;
use crate::observer::Observer;

/// The modulation of some blocks, computed from timestep, guidance and pooled text. It is the same for all tokens of a step.
#[derive(Debug)]
pub(crate) struct Modulation {
    silu_temb_bc: Tensor,
    /// For the double blocks: image and text.
    double: Vec<[Tensor; 2]>,
    /// For the single blocks.
    single: Vec<Tensor>,
}

impl FluxTransformer {
    /// Computes the modulation of these blocks. `timestep` (the scheduler's divided by 1000) and `guidance` have one value per
    /// image.
    pub(super) fn modulate(
        &self,
        blocks: Range<usize>,
        timestep: &[f32],
        guidance: Option<&[f32]>,
        pooled_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Modulation> {
        let thousands = |values: &[f32]| values.iter().map(|v| v * 1000.0).collect::<Vec<_>>();
        let temb_bc = self.time_text_embed.forward(
            &thousands(timestep),
            guidance.map(thousands).as_deref(),
            pooled_bc,
            observer,
        )?;
        let silu_temb_bc = activation(&temb_bc, Activation::Silu)?;
        let [double, single] = self.split(blocks);
        Ok(Modulation {
            double: self.blocks[double]
                .iter()
                .map(|block| block.modulation(&silu_temb_bc))
                .collect::<Result<_>>()?,
            single: self.single_blocks[single]
                .iter()
                .map(|block| block.modulation(&silu_temb_bc))
                .collect::<Result<_>>()?,
            silu_temb_bc,
        })
    }

    /// Returns the positions of these blocks among the double and the single blocks of this value.
    fn split(&self, blocks: Range<usize>) -> [Range<usize>; 2] {
        let layers = self.config.num_layers;
        let double = |block: usize| block.min(layers) - self.held.start.min(layers);
        let single = |block: usize| block.max(layers) - self.held.start.max(layers);
        [
            double(blocks.start)..double(blocks.end),
            single(blocks.start)..single(blocks.end),
        ]
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

    fn each(text: &FluxText, map: TextMap<'_>) -> Result<FluxText> {
        Ok(FluxText {
            context: text.context.as_ref().map(map).transpose()?,
            pooled: map(&text.pooled)?,
        })
    }

    fn with_rows(text: &FluxText, rows: Option<RowSelection<'_>>) -> Result<FluxText> {
        let context = text.context.as_ref().zip(rows);
        Ok(FluxText {
            context: context.map(|(context, rows)| rows(context)).transpose()?,
            pooled: text.pooled.clone(),
        })
    }

    fn places(
        &self,
        text_len: usize,
        [rows, columns]: [usize; 2],
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<RotaryTables> {
        let rotary =
            RotaryTables::new(&self.config.axes_dims_rope, text_len, rows, columns, device)?;
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
        self.modulate(
            blocks,
            &vec![moment.timestep / 1000.0; moment.images],
            Some(&vec![moment.guidance_scale; moment.images]),
            pooled_bc,
            observer,
        )
    }

    /// Returns latents `[b, image tokens, in_channels]` as tokens of the stream, after those of the text if there are any.
    fn embed(
        &self,
        latents_blc: &Tensor,
        text: &FluxText,
        _: &RotaryTables,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let image_blc = held(&self.x_embedder)?.forward(&latents_blc.to_dtype(self.dtype)?)?;
        observer.offer("transformer.x_embedder", &image_blc)?;
        let Some(text_blc) = &text.context else {
            return Ok(image_blc);
        };
        observer.offer("transformer.context_embedder", text_blc)?;
        Ok(Tensor::cat(&[text_blc.view(), image_blc.view()], 1)?)
    }

    /// Runs these blocks on the stream. `attention` has an entry for each.
    fn run_blocks(
        &self,
        blocks: Range<usize>,
        mut stream_blc: Tensor,
        conditioning: Conditioning<'_, Modulation, RotaryTables>,
        attention: &mut [Box<dyn Attention>],
        _: &mut Skips,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Conditioning {
            modulation,
            places: rotary,
        } = conditioning;
        let [double, single] = self.split(blocks);
        let (double_attention, single_attention) = attention.split_at_mut(double.len());
        let text_len = rotary.text_len();
        let image_len = rotary.token_count() - text_len;
        if !double.is_empty() {
            let has_text = rotary.segments().iter().any(|segment| segment.stream == 0);
            let mut text_blc = match has_text {
                true => Some(stream_blc.narrow(1, 0, text_len)?),
                false => None,
            };
            let mut image_blc = match has_text {
                true => stream_blc.narrow(1, text_len, image_len)?,
                false => stream_blc,
            };
            let first = self.held.start;
            for (i, (modulation, attention)) in
                double.zip(modulation.double.iter().zip(double_attention))
            {
                let block = first + i;
                let _span = tracing::debug_span!("block", kind = "double", i = block).entered();
                (image_blc, text_blc) = self.blocks[i].forward(
                    &image_blc,
                    text_blc.as_ref(),
                    modulation,
                    rotary,
                    attention,
                )?;
                text_blc = text_blc.map(saturate).transpose()?;
                let name = format!("block.transformer_blocks.{block}");
                observer.offer(&format!("{name}.hidden_states"), &image_blc)?;
                if let Some(text_blc) = &text_blc {
                    observer.offer(&format!("{name}.encoder_hidden_states"), text_blc)?;
                }
            }
            stream_blc = match text_blc {
                None => image_blc,
                Some(text_blc) => Tensor::cat(&[text_blc.view(), image_blc.view()], 1)?,
            };
        }
        let first = self.held.start.saturating_sub(self.config.num_layers);
        for (i, (modulation, attention)) in
            single.zip(modulation.single.iter().zip(single_attention))
        {
            let block = first + i;
            let _span = tracing::debug_span!("block", kind = "single", i = block).entered();
            stream_blc =
                self.single_blocks[i].forward(&stream_blc, modulation, rotary, attention)?;
            stream_blc = saturate(stream_blc)?;
            let name = format!("block.single_transformer_blocks.{block}");
            for (stream, start, len) in [
                ("hidden_states", text_len, image_len),
                ("encoder_hidden_states", 0, text_len),
            ] {
                if observer.wants_tensors() {
                    observer.tensor(&format!("{name}.{stream}"), &|| {
                        Ok(stream_blc.narrow(1, start, len)?)
                    })?;
                }
            }
        }
        Ok(stream_blc)
    }

    /// Returns the velocity `[b, image tokens, out_channels]`, f32, of the stream.
    fn project(
        &self,
        stream_blc: &Tensor,
        conditioning: Conditioning<'_, Modulation, RotaryTables>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Conditioning {
            modulation,
            places: rotary,
        } = conditioning;
        // AdaLayerNormContinuous: the scale comes first here.
        let c = self.config.hidden_size();
        let modulation = held(&self.norm_out)?.forward(&modulation.silu_temb_bc)?;
        let text_len = rotary.text_len();
        let image_len = stream_blc.dim(1) - text_len;
        let image_blc = stream_blc.view().narrow(1, text_len, image_len)?;
        let normed = layer_norm_modulate(
            image_blc,
            chunk(&modulation, 1, c)?,
            chunk(&modulation, 0, c)?,
            EPS,
        )?;
        observer.offer("transformer.norm_out", &normed)?;
        Ok(held(&self.proj_out)?.forward(&normed.to_dtype(DType::F32)?)?)
    }

    /// Returns the bytes of the parameters of a stage with these blocks.
    fn byte_len(&self, blocks: &Blocks) -> usize {
        let (first, last) = (
            blocks.contains(0),
            blocks.contains(self.config.block_count() - 1),
        );
        let front =
            [&self.x_embedder, &self.context_embedder].map(|end| end.as_ref().filter(|_| first));
        let back = [&self.norm_out, &self.proj_out].map(|end| end.as_ref().filter(|_| last));
        let ends: Vec<&Linear> = front.into_iter().chain(back).flatten().collect();
        let (mut double, mut single) = (0, 0);
        for range in blocks.ranges() {
            let [of_double, of_single] = self.split(range.clone());
            let of_double = self.blocks[of_double].iter();
            double += of_double.map(|block| block.byte_len()).sum::<usize>();
            let of_single = self.single_blocks[of_single].iter();
            single += of_single.map(|block| block.byte_len()).sum::<usize>();
        }
        byte_len(&ends, &[]) + self.time_text_embed.byte_len() + double + single
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

/// An end of the transformer. Only the stage at that end has it.
fn held(end: &Option<Linear>) -> Result<&Linear> {
    end.as_ref().ok_or_else(|| {
        Error::Kernel(xdit_kernels::Error::shape(
            "flux",
            "a stage that holds this end of the transformer",
            format_args!("one that does not"),
        ))
    })
}

/// `x`, with infinities of f16 brought back to its largest number; diffusers clips the same streams after the same blocks.
fn saturate(x: Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 => Ok(clamp(&x, f16::MIN.to_f32(), f16::MAX.to_f32())?),
        _ => Ok(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    #[test]
    fn only_infinities_of_f16_are_clipped() {
        let x = Tensor::from_slice(
            &[f16::INFINITY, f16::ONE, f16::NEG_INFINITY],
            [3],
            &Device::cpu(),
        )
        .unwrap();
        assert_eq!(
            saturate(x).unwrap().to_vec_blocking::<f32>().unwrap(),
            [65504.0, 1.0, -65504.0]
        );
        let x = Tensor::from_slice(&[f32::INFINITY], [1], &Device::cpu()).unwrap();
        assert_eq!(
            saturate(x).unwrap().to_vec_blocking::<f32>().unwrap(),
            [f32::INFINITY]
        );
    }
}
