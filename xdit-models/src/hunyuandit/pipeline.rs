//! Prompt to image with HunyuanDiT (diffusers `pipelines/hunyuandit/pipeline_hunyuandit.py`, `HunyuanDiTPipeline`).
//!
//! Shapes: b images, l tokens, c channels, h and w latent pixels.

use xdit_cfg::GuidancePlan;
use xdit_kernels::{DType, Tensor};

use super::configs::{Configs, TEXT_LENGTHS};
use super::embeddings::SIZE_NUMBERS;
use super::encoders::{Tokenizers, encode};
use super::sizes::standard_size;
use crate::dit::{self, Call, Guide, Plan, Planned, Rules, Spread, Store};
use crate::error::Result;
use crate::layers::latents;
use crate::observer::Observer;
use crate::parallel::Parallel;
use crate::pipeline::{LoadOptions, Output};
use crate::request::{Defaults, Request};
use crate::run_plan::RunPlan;
use crate::source::ModelSource;

/// A HunyuanDiT pipeline.
#[derive(Debug)]
pub struct HunyuanPipeline {
    store: Store<Configs>,
    tokenizers: Tokenizers,
    defaults: Defaults,
    options: LoadOptions,
}

impl HunyuanPipeline {
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
        Ok(spread.run_plan(&plan, &configs.hunyuan))
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
        let scheduler = dit::scheduler(&configs.scheduler(request)?, &plan)?;
        let branches = request.branches_3(plan.guide.plan.guidance_scale > 1.0)?;
        let [prompt, ..] = branches.positive;
        let negative = branches.negative.map(|[prompt, ..]| prompt);
        let embeds = encode(
            &self.store,
            &self.tokenizers,
            &std::iter::once(prompt).chain(negative).collect::<Vec<_>>(),
            request.num_images_per_prompt,
            observer,
        )?;
        let blocks = match parallel.stage_here() {
            Some(stage) => spread.stages.blocks(stage),
            None => self.store.all_blocks(),
        };
        let painter = self.store.painter(&blocks, observer)?;
        let sizes = sizes(request, &plan);
        if configs.hunyuan.style_and_size {
            let shown = Tensor::from_slice(&sizes, [1, SIZE_NUMBERS])?;
            observer.offer("image_meta_size", &shown)?;
        }
        let mut text = Vec::with_capacity(embeds.len());
        for (branch, embeds) in embeds.iter().enumerate() {
            let mut silent = ();
            // Of the branches the first is shown from inside.
            let inside: &mut dyn Observer = match branch {
                0 => &mut *observer,
                _ => &mut silent,
            };
            let both = embeds.embeds.each_ref();
            let masks = embeds.masks.each_ref().map(Vec::as_slice);
            text.push(
                painter
                    .transformer
                    .embed_text(both, masks, &sizes, inside)?,
            );
        }
        drop(embeds);
        let mut generators = dit::generators(request)?;
        let channels = configs.hunyuan.in_channels;
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
            latents_blc: &latents::pack(&latents_bchw, configs.hunyuan.patch_size)?,
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
    [plan.images, configs.hunyuan.in_channels, h, w]
}

/// What the model is told of every image's size: what it was once, what it shall be, and where it was cut.
fn sizes(request: &Request, plan: &Plan) -> [f32; SIZE_NUMBERS] {
    let [original_height, original_width] = request.original_size.unwrap_or([1024, 1024]);
    let [height, width] = request.target_size.unwrap_or([plan.height, plan.width]);
    let [top, left] = request.crops_coords_top_left.unwrap_or([0, 0]);
    [original_height, original_width, height, width, top, left].map(|pixels| pixels as f32)
}

/// What a request asks of these ranks, checked.
fn planned(
    configs: &Configs,
    defaults: &Defaults,
    request: &Request,
    parallel: &Parallel,
    options: &LoadOptions,
) -> Result<(Plan, Spread)> {
    request.refuse(&[
        ("prompt_2", request.prompt_2.is_some()),
        ("prompt_3", request.prompt_3.is_some()),
        ("negative_prompt_2", request.negative_prompt_2.is_some()),
        ("negative_prompt_3", request.negative_prompt_3.is_some()),
        ("true_cfg_scale", request.true_cfg_scale != 1.0),
        ("clip_skip", request.clip_skip != 0),
        (
            "skip_guidance_layers",
            !request.skip_guidance_layers.is_empty(),
        ),
        ("sigmas", request.sigmas.is_some()),
        ("max_sequence_length", request.max_sequence_length.is_some()),
    ])?;
    if !configs.hunyuan.style_and_size {
        request.refuse_sizes()?;
    }
    let scheduler = configs.scheduler(request)?;
    let guide = Guide {
        embedded: 0.0,
        plan: GuidancePlan {
            guidance_scale: request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32,
            guidance_rescale: request.guidance_rescale as f32,
            skip_layers: None,
        },
        skipped: Vec::new(),
    };
    request.branches_3(guide.plan.guidance_scale > 1.0)?;
    let model = Planned {
        shape: &configs.hunyuan,
        vae: &configs.vae,
        rules: Rules {
            max_sequence_length: TEXT_LENGTHS[1],
            clip_tokens: TEXT_LENGTHS[0],
            patch: configs.hunyuan.patch_size,
            cuts_sizes: true,
            standard_size: Some(standard_size),
            max_tokens: None,
            even_sigmas: false,
        },
        defaults,
    };
    let (dtype, limit) = (options.dtype, options.memory_limit);
    let (plan, spread) = model.plan(request, guide, parallel, dtype, limit)?;
    // Steps that the scheduler cannot make show before any weight is read.
    dit::scheduler(&scheduler, &plan)?;
    dit::given_latents(request, &shape(&plan, configs))?;
    Ok((plan, spread))
}
