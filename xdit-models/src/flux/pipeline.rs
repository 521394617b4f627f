//! Prompt to image with Flux.1 (diffusers `pipelines/flux/pipeline_flux.py`, `FluxPipeline`).
//!
//! Shapes: b images, l tokens, c channels.

use std::ops::ControlFlow;

use half::{bf16, f16};
use xdit_kernels::{DType, Device, Tensor};

use super::components::Components;
use super::plan::Plan;
use super::transformer::{FluxInput, FluxText};
use super::{RotaryTables, latents};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::memory;
use crate::noise::{Generator, randn_tensor};
use crate::observer::{Observer, Phase, PhaseEvent, StepEnd};
use crate::pipeline::{LoadOptions, Output};
use crate::request::{Defaults, OutputType, Request};
use crate::schedulers::{FlowMatchEuler, Scheduler, StepState, TimestepRequest};
use crate::source::ModelSource;

/// A Flux.1 pipeline.
#[derive(Debug)]
pub struct FluxPipeline {
    components: Components,
    defaults: Defaults,
    dtype: DType,
    device: Device,
    memory_limit: Option<u64>,
}

impl FluxPipeline {
    /// The pipeline in `source`.
    ///
    /// # Errors
    /// As [`Pipeline::load`](crate::Pipeline::load).
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let components = Components::load(source, options, observer)?;
        Ok(Self {
            defaults: components.defaults(source),
            components,
            dtype: options.dtype,
            device: options.device,
            memory_limit: options.memory_limit,
        })
    }

    /// What a call uses where its request says nothing.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Draws what `request` asks for, on the current thread pool.
    ///
    /// # Errors
    /// As [`Pipeline::generate`](crate::Pipeline::generate).
    pub fn generate(&self, request: &Request, observer: &mut dyn Observer) -> Result<Output> {
        let (flux, vae) = (
            self.components.transformer.config(),
            self.components.vae.config(),
        );
        let plan = Plan::new(request, &self.defaults, flux, vae)?;
        let branches = request.branches()?;
        let bytes = plan.activation_bytes(self.dtype, flux, vae);
        let what = format!(
            "{} x {} pixels, {} images",
            plan.height, plan.width, plan.images
        );
        memory::check(&what, bytes, self.memory_limit)?;
        for warning in &plan.warnings {
            observer.warning(warning);
        }

        let text = self.components.encode(
            &branches,
            request.num_images_per_prompt,
            plan.text_len,
            observer,
        )?;
        let mut generators = request
            .seeds
            .iter()
            .map(|seed| Generator::from_seed(*seed))
            .collect::<Result<Vec<_>>>()?;
        let latents_blc = match &request.latents {
            Some(latents) => latents.to_dtype(DType::F32)?.on(self.device),
            None => self.noise(&plan, &mut generators)?,
        };
        observer.offer("latents", &latents_blc)?;
        let latents_blc = self.denoise(&plan, &text, latents_blc, &mut generators, observer)?;
        let float = match request.output {
            OutputType::Latent => None,
            OutputType::Image => Some(self.decode(&plan, &latents_blc, observer)?),
        };
        Ok(Output {
            images: float
                .as_ref()
                .map(Image::from_planes)
                .transpose()?
                .unwrap_or_default(),
            float,
            latents: latents_blc.to_dtype(self.dtype)?,
            height: plan.height,
            width: plan.width,
        })
    }

    /// The initial latents, f32 `[b, l, c]`: drawn in the pipeline's dtype and in diffusers' order, then packed.
    fn noise(&self, plan: &Plan, generators: &mut [Generator]) -> Result<Tensor> {
        let channels = self.components.transformer.config().in_channels / 4;
        let shape = [
            plan.images,
            channels,
            plan.latent_size[0],
            plan.latent_size[1],
        ];
        let noise_bchw = match self.dtype {
            DType::F32 => Tensor::from_slice(&randn_tensor::<f32>(&shape, generators)?, shape)?,
            DType::BF16 => Tensor::from_slice(&randn_tensor::<bf16>(&shape, generators)?, shape)?,
            DType::F16 => Tensor::from_slice(&randn_tensor::<f16>(&shape, generators)?, shape)?,
            other => {
                return Err(Error::invalid("dtype", other, "f32, bf16 or f16"));
            }
        };
        latents::pack(&noise_bchw.to_dtype(DType::F32)?.on(self.device))
    }

    /// The latents after all steps, f32 `[b, l, c]`. They stay f32 in between whatever the dtype: rounding them after
    /// every step would cost accuracy and save nothing.
    fn denoise(
        &self,
        plan: &Plan,
        text: &[FluxText],
        latents_blc: Tensor,
        generators: &mut [Generator],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let transformer = &self.components.transformer;
        let mut scheduler = FlowMatchEuler::new(self.components.scheduler.clone());
        scheduler.set_timesteps(&TimestepRequest {
            sigmas: Some(&plan.sigmas),
            mu: Some(self.components.scheduler.dynamic_shift(plan.image_tokens())),
            ..TimestepRequest::default()
        })?;
        let timesteps = scheduler.timesteps();
        observer.offer_values("timesteps", timesteps)?;
        observer.offer_values("sigmas", scheduler.sigmas())?;
        let axes = &transformer.config().axes_dims_rope;
        let rotary = RotaryTables::new(axes, plan.text_len, plan.tokens[0], plan.tokens[1])?;
        observer.offer("image_rotary_emb.cos", rotary.cos())?;
        observer.offer("image_rotary_emb.sin", rotary.sin())?;

        let total = timesteps.len();
        let _span = tracing::info_span!("denoise", steps = total).entered();
        observer.phase(
            Phase::Denoise,
            PhaseEvent::Start {
                total: total as u64,
            },
        );
        let mut attention: Vec<_> = text.iter().map(|_| transformer.attention()).collect();
        let mut state = StepState::default();
        let shape = [
            plan.images,
            plan.image_tokens(),
            transformer.config().in_channels,
        ];
        let mut sample = latents_blc.to_f32_vec();
        let mut latents_blc = latents_blc;
        for (index, timestep) in timesteps.iter().copied().enumerate() {
            let _span = tracing::info_span!("step", index).entered();
            let mut predictions = Vec::with_capacity(text.len());
            for (text, attention) in text.iter().zip(&mut attention) {
                let input = FluxInput {
                    latents: &latents_blc,
                    text,
                    timestep: &vec![timestep / 1000.0; plan.images],
                    guidance: Some(&vec![plan.guidance_scale; plan.images]),
                    rotary: &rotary,
                };
                // Only what the first step does is shown from inside the blocks, as the goldens have it.
                let inside = &mut () as &mut dyn Observer;
                let first = index == 0 && predictions.is_empty();
                let watching = if first { &mut *observer } else { inside };
                predictions.push(transformer.forward(&input, attention, watching)?);
            }
            let prediction = combine(predictions, plan.true_cfg_scale, index, observer)?;
            observer.offer(&format!("step.{index}.noise_pred"), &prediction)?;
            let fresh: Option<Vec<f32>> = scheduler
                .draws_noise()
                .then(|| randn_tensor(&shape, generators))
                .transpose()?;
            scheduler.step(
                &mut state,
                &prediction.to_f32_vec(),
                &mut sample,
                fresh.as_deref(),
            )?;
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

    /// The images of final latents: `[b, 3, height, width]` in [0, 1]. One image is decoded at a time, which gives the
    /// same values in less memory.
    fn decode(
        &self,
        plan: &Plan,
        latents_blc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let _span = tracing::info_span!("decode", images = plan.images).entered();
        let vae = &self.components.vae;
        observer.phase(
            Phase::Decode,
            PhaseEvent::Start {
                total: plan.images as u64,
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
        let mut decoded = Vec::with_capacity(plan.images);
        let mut planes = Vec::new();
        for i in 0..plan.images {
            let image_bhwc = vae.forward(&latents_bhwc.narrow(0, i, 1)?, &mut ())?;
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
                    total: plan.images as u64,
                },
            );
        }
        if observer.wants_tensors() {
            let views: Vec<_> = decoded.iter().map(Tensor::view).collect();
            observer.tensor("vae.output", &|| Ok(Tensor::cat(&views, 0)?))?;
        }
        observer.phase(Phase::Decode, PhaseEvent::End);
        let image = Tensor::from_slice(&planes, [plan.images, 3, plan.height, plan.width])?;
        observer.offer("image", &image)?;
        Ok(image)
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
