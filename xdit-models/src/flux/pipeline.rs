//! Prompt to image with Flux.1 (diffusers `pipelines/flux/pipeline_flux.py`, `FluxPipeline`).
//!
//! Shapes: b images, l tokens, c channels.

use xdit_cfg::GuidancePlan;
use xdit_kernels::DType;

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::latents;
use crate::dit::{self, Call, Guide, Plan, Planned, Rules, Spread, Store};
use crate::error::Result;
use crate::observer::Observer;
use crate::parallel::Parallel;
use crate::pipeline::{LoadOptions, Output};
use crate::request::{Defaults, Request};
use crate::run_plan::RunPlan;
use crate::schedulers::SchedulerConfig;
use crate::source::ModelSource;

/// `FluxPipeline.check_inputs`, and its sigmas.
pub(crate) const RULES: Rules = Rules {
    max_sequence_length: 512,
    clip_tokens: 0,
    patch: 2,
    cuts_sizes: true,
    standard_size: None,
    max_tokens: None,
    even_sigmas: true,
};

/// A Flux.1 pipeline.
#[derive(Debug)]
pub struct FluxPipeline {
    store: Store<Configs>,
    tokenizers: Tokenizers,
    defaults: Defaults,
    options: LoadOptions,
}

impl FluxPipeline {
    /// The pipeline in `source`; of the transformer `one_stage` only, read by the first call.
    ///
    /// # Errors
    /// As [`Pipeline::load`](crate::Pipeline::load).
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        one_stage: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        // Configurations first: what is wrong with them shows before any weight is read.
        let configs = Configs::read(source)?;
        let tokenizers = Tokenizers::read(source, &configs)?;
        let store = Store::load(configs, source, options, one_stage, observer)?;
        Ok(Self {
            defaults: store.configs.defaults(source),
            store,
            tokenizers,
            options: options.clone(),
        })
    }

    /// What the pipeline in `source` would do for `request`, as its configurations tell.
    ///
    /// # Errors
    /// As [`Pipeline::plan`](crate::Pipeline::plan).
    pub fn plan(
        source: &ModelSource,
        options: &LoadOptions,
        request: &Request,
        parallel: &Parallel,
    ) -> Result<RunPlan> {
        let configs = Configs::read(source)?;
        let defaults = configs.defaults(source);
        let (plan, spread) = planned(&configs, &defaults, request, parallel, options)?;
        Ok(spread.run_plan(&plan, &configs.flux))
    }

    /// What a call uses where its request says nothing.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Draws what `request` asks for: prompts are encoded on the current thread pool, then the ranks of `parallel` share
    /// `threads` compute threads.
    ///
    /// # Errors
    /// As [`Pipeline::generate`](crate::Pipeline::generate).
    pub fn generate(
        &self,
        request: &Request,
        parallel: &Parallel,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let (configs, options) = (&self.store.configs, &self.options);
        let (plan, spread) = planned(configs, &self.defaults, request, parallel, options)?;
        for warning in &plan.warnings {
            observer.warning(warning);
        }
        let scheduler = SchedulerConfig::FlowMatchEuler(configs.scheduler.clone());
        let scheduler = dit::scheduler(&scheduler, &plan)?;
        let embeds = encode(
            &self.store,
            &self.tokenizers,
            &request.branches()?,
            request.num_images_per_prompt,
            plan.text_len,
            observer,
        )?;
        let blocks = match parallel.stage_here() {
            Some(stage) => spread.stages.blocks(stage),
            None => self.store.all_blocks(),
        };
        let painter = self.store.painter(&blocks, observer)?;
        let text = embeds
            .iter()
            .map(|[embeds, pooled]| painter.transformer.embed_text(embeds, pooled))
            .collect::<Result<Vec<_>>>()?;
        drop(embeds);
        let mut generators = dit::generators(request)?;
        let channels = configs.flux.in_channels;
        let packed = [plan.images, plan.image_tokens(), channels];
        let latents_blc = match dit::given_latents(request, &packed)? {
            Some(latents) => latents.to_dtype(DType::F32)?.on(options.device),
            None => {
                let noise = dit::noise(&plan, channels / 4, options, &mut generators)?;
                latents::pack(&noise)?
            }
        };
        let latents_blc = dit::at_first_level(latents_blc, &*scheduler)?;
        observer.offer("latents", &latents_blc)?;
        let call = Call {
            painter: &painter,
            scheduler: &*scheduler,
            plan: &plan,
            spread: &spread,
            text: &text,
            latents_blc: &latents_blc,
            generators: &generators,
            dtype: options.dtype,
            device: options.device,
            output: request.output,
        };
        dit::draw(&call, parallel, threads, observer)
    }
}

/// What a request asks of these ranks, checked.
fn planned(
    configs: &Configs,
    defaults: &Defaults,
    request: &Request,
    parallel: &Parallel,
    options: &LoadOptions,
) -> Result<(Plan, Spread)> {
    request.refuse_conditions(SchedulerConfig::FLOW_MATCHING)?;
    request.refuse(&[
        ("prompt_3", request.prompt_3.is_some()),
        ("negative_prompt_3", request.negative_prompt_3.is_some()),
        ("clip_skip", request.clip_skip != 0),
        (
            "skip_guidance_layers",
            !request.skip_guidance_layers.is_empty(),
        ),
    ])?;
    // Without a negative prompt there is no other branch, whatever the scale.
    let scale = match request.branches()?.negative {
        Some(_) => request.true_cfg_scale as f32,
        None => 1.0,
    };
    let guide = Guide {
        embedded: request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32,
        plan: GuidancePlan {
            guidance_scale: scale,
            guidance_rescale: 0.0,
            skip_layers: None,
        },
        skipped: Vec::new(),
    };
    let model = Planned {
        shape: &configs.flux,
        vae: &configs.vae,
        rules: RULES,
        defaults,
    };
    let (dtype, limit) = (options.dtype, options.memory_limit);
    let (plan, spread) = model.plan(request, guide, parallel, dtype, limit)?;
    let tokens = plan.image_tokens();
    dit::given_latents(request, &[plan.images, tokens, configs.flux.in_channels])?;
    Ok((plan, spread))
}
