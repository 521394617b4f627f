//! Timestep, guidance and pooled text as the one vector that modulates a transformer's blocks (diffusers
//! `models/embeddings.py`).
//!
//! Shapes: b images, c channels.

use xdit_kernels::activation::Activation;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{DType, Device, Tensor, elementwise};

use super::Packing;
use crate::error::Result;
use crate::files::weights::Scope;
use crate::observer::Observer;

/// Width of the sinusoidal embedding of a timestep.
pub(crate) const TIME_CHANNELS: usize = 256;
/// Base of the sinusoid's periods.
const THETA: f64 = 10_000.0;

/// `CombinedTimestepTextProjEmbeddings`, and `CombinedTimestepGuidanceTextProjEmbeddings` where there is guidance: all of
/// it in f32 whatever the dtype, which is nearer the truth than rounding a timestep to bf16.
#[derive(Debug)]
pub(crate) struct TimeTextEmbed {
    timestep: Mlp,
    guidance: Option<Mlp>,
    text: Mlp,
}

/// Two linear layers with SiLU between them.
#[derive(Debug)]
pub(crate) struct Mlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl Mlp {
    /// Widths before, between and after the layers.
    pub(crate) fn load(
        scope: &Scope<'_>,
        [inputs, inner, outputs]: [usize; 3],
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        Ok(Self {
            linear_1: packing.linear(&scope.child("linear_1"), [inner, inputs], true)?,
            linear_2: packing.linear(&scope.child("linear_2"), [outputs, inner], true)?,
        })
    }

    /// Bytes that it holds.
    pub(crate) fn byte_len(&self) -> usize {
        self.linear_1.byte_len() + self.linear_2.byte_len()
    }

    /// `[.., inputs]` to `[.., outputs]`, in its dtype.
    pub(crate) fn forward(&self, x_bc: &Tensor) -> Result<Tensor> {
        let inner = self
            .linear_1
            .forward_with(&[x_bc.view()], Epilogue::Activation(Activation::Silu))?;
        Ok(self.linear_2.forward(&inner)?)
    }
}

impl TimeTextEmbed {
    /// `hidden`: width of the result; `pooled`: of the pooled text.
    pub(crate) fn load(
        [hidden, pooled]: [usize; 2],
        guidance: bool,
        scope: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let timestep = Mlp::load(
            &scope.child("timestep_embedder"),
            [TIME_CHANNELS, hidden, hidden],
            packing,
        )?;
        let guidance = guidance
            .then(|| {
                Mlp::load(
                    &scope.child("guidance_embedder"),
                    [TIME_CHANNELS, hidden, hidden],
                    packing,
                )
            })
            .transpose()?;
        let text = Mlp::load(
            &scope.child("text_embedder"),
            [pooled, hidden, hidden],
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
        self.text.forward(&pooled_bc.to_dtype(DType::F32)?)
    }

    /// Bytes that it holds.
    pub(crate) fn byte_len(&self) -> usize {
        let mlps = [
            Some(&self.timestep),
            self.guidance.as_ref(),
            Some(&self.text),
        ];
        mlps.into_iter().flatten().map(Mlp::byte_len).sum()
    }

    pub(crate) fn has_guidance(&self) -> bool {
        self.guidance.is_some()
    }

    /// The vector that modulates every block, f32 `[b, c]`, of timesteps from 1000 down and guidance scales times 1000.
    pub(crate) fn forward(
        &self,
        timestep: &[f32],
        guidance: Option<&[f32]>,
        text_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let projected = sinusoid(timestep, text_bc.device())?;
        observer.offer("transformer.time_proj", &projected)?;
        let mut temb = self.timestep.forward(&projected)?;
        observer.offer("transformer.timestep_embedder", &temb)?;
        if let (Some(embedder), Some(guidance)) = (&self.guidance, guidance) {
            let guidance = embedder.forward(&sinusoid(guidance, text_bc.device())?)?;
            observer.offer("transformer.guidance_embedder", &guidance)?;
            temb = elementwise::add(&temb, &guidance)?;
        }
        observer.offer("transformer.text_embedder", text_bc)?;
        let temb = elementwise::add(&temb, text_bc)?;
        observer.offer("transformer.temb", &temb)?;
        Ok(temb)
    }
}

/// Cosines, then sines, of each value at 128 periods: `[values, 256]` (`get_timestep_embedding` with
/// `flip_sin_to_cos`). Every step is rounded to f32 where torch rounds it: an angle near 1000 is worth it.
pub(crate) fn sinusoid(values: &[f32], device: &Device) -> Result<Tensor> {
    let half = TIME_CHANNELS / 2;
    let mut out = Vec::with_capacity(values.len() * TIME_CHANNELS);
    for value in values {
        let angles: Vec<f32> = (0..half).map(|i| value * frequency(i, half)).collect();
        out.extend(angles.iter().map(|angle| f64::from(*angle).cos() as f32));
        out.extend(angles.iter().map(|angle| f64::from(*angle).sin() as f32));
    }
    Ok(Tensor::from_slice(
        &out,
        [values.len(), TIME_CHANNELS],
        device,
    )?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoid_puts_cosines_first() {
        let out = sinusoid(&[0.0, 1000.0], &Device::cpu())
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap();
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
