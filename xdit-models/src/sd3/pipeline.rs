//! Prompt to image with Stable Diffusion 3 and 3.5 (diffusers `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py`,
//! `StableDiffusion3Pipeline`).
//!
//! Shapes: b images, l tokens, c channels, h and w latent pixels.

use xdit_cfg::{GuidancePlan, SkipLayers};
use xdit_kernels::DType;

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use crate::dit::{self, CLIP_LENGTH, Call, Guide, Plan, Planned, Rules, Spread, Store};
use crate::error::{Error, Result};
use crate::layers::latents;
use crate::observer::Observer;
use crate::parallel::Parallel;
use crate::pipeline::{LoadOptions, Output};
use crate::request::{Defaults, Request};
use crate::run_plan::RunPlan;
use crate::schedulers::SchedulerConfig;
use crate::source::ModelSource;

/// A Stable Diffusion 3 or 3.5 pipeline.
#[derive(Debug)]
pub struct Sd3Pipeline {
    store: Store<Configs>,
    tokenizers: Tokenizers,
    defaults: Defaults,
    options: LoadOptions,
}

impl Sd3Pipeline {
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
            defaults: store.configs.defaults(),
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
        let defaults = configs.defaults();
        let (plan, spread) = planned(&configs, &defaults, request, parallel, options)?;
        Ok(spread.run_plan(&plan, &configs.sd3))
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
        let guided = plan.guide.plan.guidance_scale > 1.0;
        let embeds = encode(
            &self.store,
            &self.tokenizers,
            &request.branches_3(guided)?,
            request.num_images_per_prompt,
            [plan.sequence_length, request.clip_skip],
            observer,
        )?;
        let blocks = match parallel.stage_here() {
            Some(stage) => spread.stages.blocks(stage),
            None => self.store.all_blocks(),
        };
        let painter = self.store.painter(&blocks, observer)?;
        let text = embeds
            .iter()
            .map(|embeds| {
                let transformer = &painter.transformer;
                transformer.embed_text(&embeds.prompt_embeds, &embeds.pooled)
            })
            .collect::<Result<Vec<_>>>()?;
        drop(embeds);
        let mut generators = dit::generators(request)?;
        let channels = configs.sd3.in_channels;
        let latents_bchw = match dit::given_latents(request, &shape(&plan, configs))? {
            Some(latents) => latents.to_dtype(DType::F32)?.on(options.device),
            None => dit::noise(&plan, channels, options, &mut generators)?,
        };
        let latents_bchw = dit::at_first_level(latents_bchw, &*scheduler)?;
        observer.offer("latents", &latents_bchw)?;
        let call = Call {
            painter: &painter,
            scheduler: &*scheduler,
            plan: &plan,
            spread: &spread,
            text: &text,
            latents_blc: &latents::pack(&latents_bchw, configs.sd3.patch_size)?,
            generators: &generators,
            dtype: options.dtype,
            device: options.device,
            output: request.output,
        };
        dit::draw(&call, parallel, threads, observer)
    }
}

/// Of all latents.
fn shape(plan: &Plan, configs: &Configs) -> [usize; 4] {
    let [h, w] = plan.latent_size;
    [plan.images, configs.sd3.in_channels, h, w]
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
    request.refuse(&[("true_cfg_scale", request.true_cfg_scale != 1.0)])?;
    let model = Planned {
        shape: &configs.sd3,
        vae: &configs.vae,
        rules: Rules {
            max_sequence_length: 512,
            clip_tokens: CLIP_LENGTH.min(configs.clip.max_position_embeddings),
            patch: configs.sd3.patch_size,
            cuts_sizes: false,
            standard_size: None,
            max_tokens: Some(configs.sd3.pos_embed_max_size),
            even_sigmas: false,
        },
        defaults,
    };
    let guide = guide(configs, defaults, request)?;
    request.branches_3(guide.plan.guidance_scale > 1.0)?;
    let (dtype, limit) = (options.dtype, options.memory_limit);
    let (plan, spread) = model.plan(request, guide, parallel, dtype, limit)?;
    dit::given_latents(request, &shape(&plan, configs))?;
    Ok((plan, spread))
}

/// Guidance, and which blocks its third branch leaves out.
fn guide(configs: &Configs, defaults: &Defaults, request: &Request) -> Result<Guide> {
    let skipped = &request.skip_guidance_layers;
    let count = configs.sd3.block_count();
    if let Some(block) = skipped.iter().find(|block| **block >= count) {
        let allowed = format!("below {count}, the blocks of the model");
        return Err(Error::invalid("skip_guidance_layers", block, allowed));
    }
    let layers = configs
        .clip
        .num_hidden_layers
        .min(configs.clip_2.num_hidden_layers);
    if request.clip_skip >= layers {
        let allowed = format!("below {layers}, the layers of CLIP");
        return Err(Error::invalid("clip_skip", request.clip_skip, allowed));
    }
    Ok(Guide {
        embedded: 0.0,
        plan: GuidancePlan {
            guidance_scale: request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32,
            guidance_rescale: 0.0,
            skip_layers: (!skipped.is_empty()).then_some(SkipLayers {
                scale: request.skip_layer_guidance_scale as f32,
                start: request.skip_layer_guidance_start,
                stop: request.skip_layer_guidance_stop,
            }),
        },
        skipped: skipped.clone(),
    })
}
