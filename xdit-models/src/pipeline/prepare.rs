//! Prepares a call for all models: the checked plan, and the noise.

use half::{bf16, f16};
use xdit_kernels::{DType, Device, Tensor, elementwise};

use crate::error::{Error, Result};
use crate::models::dit::{DitShape, Guide};
use crate::noise::{Generator, randn_tensor};
use crate::pipeline::options::LoadOptions;
use crate::pipeline::request::{Defaults, OutputType, Request};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::quote;
use crate::ranks::parallel::Parallel;
use crate::ranks::partition::Partition;
use crate::schedulers::{Scheduler, SchedulerConfig, TimestepRequest};
use crate::vae::VaeConfig;

/// The facts about a model that plans need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) shape: &'a dyn DitShape,
    pub(crate) vae: &'a VaeConfig,
    pub(crate) rules: Rules,
    pub(crate) defaults: &'a Defaults,
}

impl Planned<'_> {
    /// Checks a request for these ranks. Does not check memory.
    pub(crate) fn plan(
        &self,
        request: &Request,
        guide: Guide,
        parallel: &Parallel,
        dtype: DType,
    ) -> Result<(ResolvedRequest, Partition)> {
        let mut plan = ResolvedRequest::new(request, self.defaults, self.rules, guide, self.vae)?;
        plan.guide.plan.check(parallel.degrees.cfg)?;
        if parallel.shares_decode() && request.output != OutputType::Latent {
            plan.decode_in_bands();
        }
        plan.decoded_at_once = parallel.replicas_here().min(plan.images);
        let partition = Partition::new(&plan, parallel, self.shape, dtype)?;
        Ok((plan, partition))
    }
}

/// Returns the random generators of the request.
pub(crate) fn generators(request: &Request) -> Result<Vec<Generator>> {
    let seeds = request.seeds.iter();
    seeds.map(|seed| Generator::from_seed(*seed)).collect()
}

/// Draws the initial noise `[b, c, h, w]`, f32, in the pipeline's dtype and in diffusers' order.
pub(crate) fn noise(
    plan: &ResolvedRequest,
    channels: usize,
    options: &LoadOptions,
    generators: &mut [Generator],
) -> Result<Tensor> {
    let [h, w] = plan.latent_size;
    let shape = [plan.images, channels, h, w];
    drawn(&shape, options.dtype, generators, &options.device)
}

/// Draws noise of this shape in `dtype` and returns it as f32.
pub(crate) fn drawn(
    shape: &[usize],
    dtype: DType,
    generators: &mut [Generator],
    device: &Device,
) -> Result<Tensor> {
    let noise = match dtype {
        DType::F32 => Tensor::from_slice(&randn_tensor::<f32>(shape, generators)?, shape, device)?,
        DType::BF16 => {
            Tensor::from_slice(&randn_tensor::<bf16>(shape, generators)?, shape, device)?
        }
        DType::F16 => Tensor::from_slice(&randn_tensor::<f16>(shape, generators)?, shape, device)?,
        other => return Err(Error::invalid("dtype", other, "f32, bf16 or f16")),
    };
    Ok(noise.to_dtype(DType::F32)?)
}

/// Creates the scheduler of a call, with its steps.
pub(crate) fn scheduler(
    config: &SchedulerConfig,
    plan: &ResolvedRequest,
) -> Result<Box<dyn Scheduler>> {
    let mut scheduler = config.scheduler();
    scheduler.set_timesteps(&TimestepRequest {
        num_inference_steps: Some(plan.steps),
        sigmas: plan.sigmas.as_deref(),
        mu: match config {
            SchedulerConfig::FlowMatchEuler(config) => {
                Some(config.dynamic_shift(plan.image_tokens()))
            }
            _ => None,
        },
        ..TimestepRequest::default()
    })?;
    Ok(scheduler)
}

/// Returns the latents before the first step: noise or the caller's latents, at the scheduler's first noise level.
pub(crate) fn at_first_level(latents: Tensor, scheduler: &dyn Scheduler) -> Result<Tensor> {
    let sigma = scheduler.init_noise_sigma();
    if sigma == 1.0 {
        return Ok(latents);
    }
    Ok(elementwise::scale(&latents.to_dtype(DType::F32)?, sigma)?)
}

/// Returns the caller's latents, if there are any. Their shape must be this one.
pub(crate) fn given_latents(request: &Request, expected: &[usize]) -> Result<Option<Tensor>> {
    match &request.latents {
        Some(latents) if latents.shape() != expected => {
            let allowed = format!("latents of shape {}", quote::list(expected));
            let given = quote::list(latents.shape());
            Err(Error::invalid("latents", given, allowed))
        }
        latents => Ok(latents.clone()),
    }
}
