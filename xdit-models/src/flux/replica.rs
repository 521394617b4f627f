//! What each rank of a replica does: noise to latents to pictures, for the images of that replica.
//!
//! Every rank of a replica holds the latents whole and steps them alike; only inside the transformer does each have rows of
//! its own. Shapes: b images, l tokens, c channels.

use std::ops::ControlFlow;

use xdit_comm::Shard;
use xdit_kernels::{Device, Tensor};

use super::components::Painter;
use super::plan::Plan;
use super::transformer::{FluxInput, FluxText};
use super::{RotaryTables, latents};
use crate::compose::Team;
use crate::error::{Error, Result};
use crate::noise::{Generator, randn_tensor};
use crate::observer::{Observer, Phase, PhaseEvent, StepEnd};
use crate::schedulers::{
    FlowMatchEuler, FlowMatchEulerConfig, Scheduler, StepState, TimestepRequest,
};

/// The images of one replica, ready to be denoised.
#[derive(Debug)]
pub(super) struct Replica<'a> {
    pub(super) painter: &'a Painter,
    pub(super) scheduler: &'a FlowMatchEulerConfig,
    /// The plan of the whole call.
    pub(super) plan: &'a Plan,
    /// Which of the call's images.
    pub(super) images: Shard,
    /// Their prompts, a branch after the other.
    pub(super) text: Vec<FluxText>,
    /// Their noise, f32 `[b, l, c]`.
    pub(super) latents_blc: Tensor,
    /// Where further noise comes from, for all images of the call.
    pub(super) generators: Vec<Generator>,
    pub(super) device: Device,
}

impl Replica<'_> {
    /// The latents after all steps, f32 `[b, l, c]`. They stay f32 in between whatever the dtype: rounding them after
    /// every step would cost accuracy and save nothing.
    ///
    /// # Collective
    /// Every rank of the team calls it.
    pub(super) fn denoise(&self, team: &Team, observer: &mut dyn Observer) -> Result<Tensor> {
        let (plan, transformer) = (self.plan, &self.painter.transformer);
        let mut generators = self.generators.clone();
        let mut scheduler = FlowMatchEuler::new(self.scheduler.clone());
        scheduler.set_timesteps(&TimestepRequest {
            sigmas: Some(&plan.sigmas),
            mu: Some(self.scheduler.dynamic_shift(plan.image_tokens())),
            ..TimestepRequest::default()
        })?;
        let timesteps = scheduler.timesteps();
        observer.offer_values("timesteps", timesteps)?;
        observer.offer_values("sigmas", scheduler.sigmas())?;
        let axes = &transformer.config().axes_dims_rope;
        let rotary = RotaryTables::new(axes, plan.text_len, plan.tokens[0], plan.tokens[1])?;
        observer.offer("image_rotary_emb.cos", rotary.cos())?;
        observer.offer("image_rotary_emb.sin", rotary.sin())?;

        let part = [plan.text_len, plan.image_tokens()].map(|total| team.segment(total));
        let rotary = rotary.part(part[0], part[1])?;
        let text = self
            .text
            .iter()
            .map(|text| text.with_rows(|whole| team.shard(whole)))
            .collect::<Result<Vec<_>>>()?;

        let total = timesteps.len();
        let _span = tracing::info_span!("denoise", steps = total).entered();
        observer.phase(
            Phase::Denoise,
            PhaseEvent::Start {
                total: total as u64,
            },
        );
        let nests = || (0..transformer.block_count()).map(|_| team.attention());
        let mut attention = text
            .iter()
            .map(|_| nests().collect::<Result<Vec<_>>>())
            .collect::<Result<Vec<_>>>()?;
        let mut state = StepState::default();
        let tokens = [plan.image_tokens(), transformer.config().in_channels];
        let shape = [self.images.len, tokens[0], tokens[1]];
        let mut sample = self.latents_blc.to_f32_vec();
        let mut latents_blc = self.latents_blc.clone();
        for (index, timestep) in timesteps.iter().copied().enumerate() {
            let _span = tracing::info_span!("step", index).entered();
            let mut predictions = Vec::with_capacity(text.len());
            let rows_blc = team.shard(&latents_blc)?;
            for (text, attention) in text.iter().zip(&mut attention) {
                let input = FluxInput {
                    latents: &rows_blc,
                    text,
                    timestep: &vec![timestep / 1000.0; self.images.len],
                    guidance: Some(&vec![plan.guidance_scale; self.images.len]),
                    rotary: &rotary,
                };
                // Only what the first step does is shown from inside the blocks, as the goldens have it, and only by a
                // rank that holds all rows.
                let inside = &mut () as &mut dyn Observer;
                let shown = index == 0 && predictions.is_empty() && !team.shares_sequence();
                let watching = if shown { &mut *observer } else { inside };
                let rows = transformer.forward(&input, attention, watching)?;
                predictions.push(team.gather(rows, plan.image_tokens())?);
            }
            let prediction = combine(predictions, plan.true_cfg_scale, index, observer)?;
            observer.offer(&format!("step.{index}.noise_pred"), &prediction)?;
            // Noise is drawn for all images of the call, so that it is the same however they are shared out.
            let each = tokens[0] * tokens[1];
            let fresh: Option<Vec<f32>> = scheduler
                .draws_noise()
                .then(|| randn_tensor(&[plan.images, tokens[0], tokens[1]], &mut generators))
                .transpose()?;
            let fresh = fresh
                .as_deref()
                .map(|all| &all[self.images.start * each..self.images.end() * each]);
            scheduler.step(&mut state, &prediction.to_f32_vec(), &mut sample, fresh)?;
            latents_blc = Tensor::from_slice(&sample, shape)?.on(self.device);
            observer.offer(&format!("step.{index}.latents"), &latents_blc)?;
            observer.phase(
                Phase::Denoise,
                PhaseEvent::Advance {
                    done: index as u64 + 1,
                    total: total as u64,
                },
            );
            let event = StepEnd {
                index,
                total,
                timestep,
                latents: &latents_blc,
            };
            if let ControlFlow::Break(()) = observer.step_end(&event) {
                return Err(Error::Stopped { step: index + 1 });
            }
        }
        observer.phase(Phase::Denoise, PhaseEvent::End);
        Ok(latents_blc)
    }

    /// The images of final latents: `[b, 3, height, width]` in [0, 1], on the rank that speaks for the replica. One image
    /// is decoded at a time, which gives the same values in less memory.
    ///
    /// # Collective
    /// With `ranks` every rank of that team calls it; they decode together. Without, this rank decodes alone.
    pub(super) fn decode(
        &self,
        latents_blc: &Tensor,
        ranks: Option<&Team>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Tensor>> {
        let (plan, images) = (self.plan, self.images.len);
        let _span = tracing::info_span!("decode", images).entered();
        let vae = &self.painter.vae;
        observer.phase(
            Phase::Decode,
            PhaseEvent::Start {
                total: images as u64,
            },
        );
        let config = vae.config();
        let scaled: Vec<f32> = latents_blc
            .to_f32_vec()
            .iter()
            .map(|value| value / config.scaling_factor + config.shift_factor)
            .collect();
        let scaled = Tensor::from_slice(&scaled, latents_blc.shape())?.on(self.device);
        let latents_bhwc = latents::unpack_nhwc(scaled.view(), plan.latent_size)?;
        observer.offer_picture("vae.input", &latents_bhwc)?;
        let mut decoded = Vec::with_capacity(images);
        let mut planes = Vec::new();
        for i in 0..images {
            let latents_bhwc = latents_bhwc.narrow(0, i, 1)?;
            let image_bhwc = match ranks {
                Some(team) => team.decode(vae, &latents_bhwc)?,
                None if plan.vae_tiling => Some(vae.forward_tiled(&latents_bhwc)?),
                None => Some(vae.forward(&latents_bhwc, &mut ())?),
            };
            let Some(image_bhwc) = image_bhwc else {
                continue;
            };
            let planar = image_bhwc.view().permute(&[0, 3, 1, 2])?.to_tensor()?;
            planes.extend(
                planar
                    .to_f32_vec()
                    .iter()
                    .map(|value| (value * 0.5 + 0.5).clamp(0.0, 1.0)),
            );
            if observer.wants_tensors() {
                decoded.push(planar);
            }
            let done = i as u64 + 1;
            observer.phase(
                Phase::Decode,
                PhaseEvent::Advance {
                    done,
                    total: images as u64,
                },
            );
        }
        if planes.is_empty() {
            return Ok(None);
        }
        if observer.wants_tensors() {
            let views: Vec<_> = decoded.iter().map(Tensor::view).collect();
            observer.tensor("vae.output", &|| Ok(Tensor::cat(&views, 0)?))?;
        }
        observer.phase(Phase::Decode, PhaseEvent::End);
        let image = Tensor::from_slice(&planes, [images, 3, plan.height, plan.width])?;
        observer.offer("image", &image)?;
        Ok(Some(image))
    }
}

/// One prediction out of the branches': `uncond + scale · (cond - uncond)` when there are two.
fn combine(
    predictions: Vec<Tensor>,
    scale: f32,
    step: usize,
    observer: &mut dyn Observer,
) -> Result<Tensor> {
    let [cond, uncond] = match <[Tensor; 2]>::try_from(predictions) {
        Ok(both) => both,
        Err(mut one) => return Ok(one.swap_remove(0)),
    };
    observer.offer(&format!("step.{step}.noise_pred_cond"), &cond)?;
    observer.offer(&format!("step.{step}.noise_pred_uncond"), &uncond)?;
    let guided: Vec<f32> = cond
        .to_f32_vec()
        .iter()
        .zip(uncond.to_f32_vec())
        .map(|(cond, uncond)| uncond + scale * (cond - uncond))
        .collect();
    Ok(Tensor::from_slice(&guided, cond.shape())?.on(cond.device()))
}
