//! What enters a Flux transformer beside its tokens: timestep, guidance and pooled text as one vector, and positions as
//! rotary tables (diffusers `models/embeddings.py`, `pipelines/flux/pipeline_flux.py`).
//!
//! Shapes: b images, l tokens, c channels, d head dim.

use xdit_kernels::activation::Activation;
use xdit_kernels::attention::Segment;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{Tensor, View, elementwise, rope};

use super::FluxConfig;
use crate::error::Result;
use crate::layers::Packing;
use crate::observer::Observer;
use crate::weights::Scope;

/// Width of the sinusoidal embedding of a timestep.
pub(crate) const TIME_CHANNELS: usize = 256;
/// Base of the sinusoid's periods and of the rotary frequencies.
const THETA: f64 = 10_000.0;

/// `CombinedTimestepGuidanceTextProjEmbeddings`: all of it in f32 whatever the dtype, which is nearer the truth than
/// rounding a timestep to bf16.
#[derive(Debug)]
pub(crate) struct TimeTextEmbed {
    timestep: Mlp,
    guidance: Option<Mlp>,
    text: Mlp,
}

/// Two linear layers with SiLU between them.
#[derive(Debug)]
struct Mlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl Mlp {
    fn load(
        scope: &Scope<'_>,
        inputs: usize,
        outputs: usize,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        Ok(Self {
            linear_1: packing.linear(&scope.child("linear_1"), [outputs, inputs], true)?,
            linear_2: packing.linear(&scope.child("linear_2"), [outputs, outputs], true)?,
        })
    }

    fn forward(&self, x_bc: &Tensor) -> Result<Tensor> {
        let inner = self
            .linear_1
            .forward_with(&[x_bc.view()], Epilogue::Activation(Activation::Silu))?;
        Ok(self.linear_2.forward(&inner)?)
    }
}

impl TimeTextEmbed {
    pub(crate) fn load(
        config: &FluxConfig,
        scope: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let hidden = config.hidden_size();
        let timestep = Mlp::load(
            &scope.child("timestep_embedder"),
            TIME_CHANNELS,
            hidden,
            packing,
        )?;
        let guidance = config
            .guidance_embeds
            .then(|| {
                Mlp::load(
                    &scope.child("guidance_embedder"),
                    TIME_CHANNELS,
                    hidden,
                    packing,
                )
            })
            .transpose()?;
        let text = Mlp::load(
            &scope.child("text_embedder"),
            config.pooled_projection_dim,
            hidden,
            packing,
        )?;
        Ok(Self {
            timestep,
            guidance,
            text,
        })
    }

    /// The pooled text `[b, pooled]` as f32 `[b, c]`; the same in every step.
    pub(crate) fn text(&self, pooled_bc: &Tensor) -> Result<Tensor> {
        self.text
            .forward(&pooled_bc.to_dtype(xdit_kernels::DType::F32)?)
    }

    /// Bytes that it holds.
    pub(crate) fn byte_len(&self) -> usize {
        let mlps = [
            Some(&self.timestep),
            self.guidance.as_ref(),
            Some(&self.text),
        ];
        let linears = mlps
            .into_iter()
            .flatten()
            .flat_map(|mlp| [&mlp.linear_1, &mlp.linear_2]);
        linears.map(Linear::byte_len).sum()
    }

    pub(crate) fn has_guidance(&self) -> bool {
        self.guidance.is_some()
    }

    /// The vector that modulates every block, f32 `[b, c]`.
    pub(crate) fn forward(
        &self,
        timestep: &[f32],
        guidance: Option<&[f32]>,
        text_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let projected = sinusoid(timestep)?.on(text_bc.device());
        observer.offer("transformer.time_proj", &projected)?;
        let mut temb = self.timestep.forward(&projected)?;
        observer.offer("transformer.timestep_embedder", &temb)?;
        if let (Some(embedder), Some(guidance)) = (&self.guidance, guidance) {
            let guidance = embedder.forward(&sinusoid(guidance)?.on(text_bc.device()))?;
            observer.offer("transformer.guidance_embedder", &guidance)?;
            temb = elementwise::add(&temb, &guidance)?;
        }
        observer.offer("transformer.text_embedder", text_bc)?;
        let temb = elementwise::add(&temb, text_bc)?;
        observer.offer("transformer.temb", &temb)?;
        Ok(temb)
    }
}

/// Cosines, then sines, of `1000 · value` at 128 periods: `[values, 256]` (`get_timestep_embedding` with
/// `flip_sin_to_cos`). Every step is rounded to f32 where torch rounds it: an angle near 1000 is worth it.
fn sinusoid(values: &[f32]) -> Result<Tensor> {
    let half = TIME_CHANNELS / 2;
    let mut out = Vec::with_capacity(values.len() * TIME_CHANNELS);
    for value in values {
        let angles: Vec<f32> = (0..half)
            .map(|i| value * 1000.0 * frequency(i, half))
            .collect();
        out.extend(angles.iter().map(|angle| f64::from(*angle).cos() as f32));
        out.extend(angles.iter().map(|angle| f64::from(*angle).sin() as f32));
    }
    Ok(Tensor::from_slice(&out, [values.len(), TIME_CHANNELS])?)
}

/// `exp(-ln(10000) · i / half)` as torch's vectorised f32 `exp` gives it for half = 128: rounded to nearest except at
/// three places, where it is one unit higher. At the angle 1000 that unit moves the whole embedding by 2.7e-6.
fn frequency(i: usize, half: usize) -> f32 {
    const ONE_UNIT_HIGHER: [usize; 3] = [13, 44, 119];
    let exponent = (-THETA.ln()) as f32 * i as f32 / half as f32;
    let nearest = f64::from(exponent).exp() as f32;
    if ONE_UNIT_HIGHER.contains(&i) {
        nearest.next_up()
    } else {
        nearest
    }
}

/// Where tokens stand: the cosines and sines that rotate their queries and keys, and which rows of which streams they are.
/// Text tokens come first, then the image tokens of one image size.
///
/// # Examples
/// ```
/// use xdit_models::flux::RotaryTables;
/// let tables = RotaryTables::new(&[16, 56, 56], 24, 16, 16)?;
/// assert_eq!(tables.cos().shape(), [24 + 16 * 16, 128]);
/// // Text stands at position 0, so it is not rotated.
/// assert!(tables.cos().narrow(0, 0, 24)?.to_f32_vec().iter().all(|c| *c == 1.0));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RotaryTables {
    cos_ld: Tensor,
    sin_ld: Tensor,
    text_len: usize,
    segments: Vec<Segment>,
}

impl RotaryTables {
    /// The tables of `text_len` text tokens and an image of `rows` × `columns` tokens (`FluxPosEmbed`, whose ids are 0
    /// for text and (0, row, column) for the image).
    ///
    /// # Shapes
    /// Both tables are `[text_len + rows · columns, sum of axes_dims]`, each frequency twice in a row, f32.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when there is no memory for them.
    pub fn new(
        axes_dims: &[usize; 3],
        text_len: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let text = std::iter::repeat_n([0.0; 3], text_len);
        let image = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| [0.0, row as f32, column as f32]));
        let ids: Vec<[f32; 3]> = text.chain(image).collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for (axis, dims) in axes_dims.iter().enumerate().filter(|(_, dims)| **dims > 0) {
            let positions: Vec<f32> = ids.iter().map(|id| id[axis]).collect();
            let table = rope::rope_table(&positions, *dims, THETA)?;
            cos.push(table.0);
            sin.push(table.1);
        }
        let join =
            |parts: &[Tensor]| Tensor::cat(&parts.iter().map(Tensor::view).collect::<Vec<_>>(), 1);
        Ok(Self {
            cos_ld: join(&cos)?,
            sin_ld: join(&sin)?,
            text_len,
            segments: [text_len, rows * columns]
                .into_iter()
                .enumerate()
                .map(|(stream, total)| Segment {
                    stream,
                    start: 0,
                    len: total,
                    total,
                })
                .collect(),
        })
    }

    /// The tables of some of the tokens: rows of the text, if there are any, and of parts of the image, each part a stream
    /// of its own (the image as a whole too) with the place of its first token in the image.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if there are no such rows.
    pub fn part(&self, text: Option<Segment>, image: &[(usize, Segment)]) -> Result<Self> {
        let text_rows = text.map(|text| (text.start, text.len));
        let image_rows = image
            .iter()
            .map(|(place, rows)| (self.text_len + place + rows.start, rows.len));
        let runs: Vec<_> = text_rows.into_iter().chain(image_rows).collect();
        let rows = |table: &Tensor| {
            let runs = runs
                .iter()
                .map(|(start, len)| table.view().narrow(0, *start, *len))
                .collect::<xdit_kernels::Result<Vec<_>>>()?;
            Tensor::cat(&runs, 0)
        };
        Ok(Self {
            cos_ld: rows(&self.cos_ld)?,
            sin_ld: rows(&self.sin_ld)?,
            text_len: text.map_or(0, |text| text.len),
            segments: text
                .into_iter()
                .chain(image.iter().map(|(_, rows)| *rows))
                .collect(),
        })
    }

    /// The cosines, `[l, d]`.
    #[must_use]
    pub fn cos(&self) -> &Tensor {
        &self.cos_ld
    }

    /// The sines, `[l, d]`.
    #[must_use]
    pub fn sin(&self) -> &Tensor {
        &self.sin_ld
    }

    /// How many tokens there are, of text and image together.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.cos_ld.dim(0)
    }

    /// How many of them are text.
    #[must_use]
    pub fn text_len(&self) -> usize {
        self.text_len
    }

    /// Which rows of which streams the tokens are.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Rows `start..start + len` of both tables.
    pub(crate) fn rows(&self, start: usize, len: usize) -> Result<(View<'_>, View<'_>)> {
        Ok((
            self.cos_ld.view().narrow(0, start, len)?,
            self.sin_ld.view().narrow(0, start, len)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoid_puts_cosines_first() {
        let out = sinusoid(&[0.0, 1.0]).unwrap().to_f32_vec();
        assert!(out[..128].iter().all(|c| *c == 1.0) && out[128..256].iter().all(|s| *s == 0.0));
        // One rounding of the result.
        assert!(
            (out[256] - 1000f64.cos() as f32).abs() <= 6e-8,
            "{}",
            out[256]
        );
        assert!(
            (out[384] - 1000f64.sin() as f32).abs() <= 6e-8,
            "{}",
            out[384]
        );
    }
}
