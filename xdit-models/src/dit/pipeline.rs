//! From a request to images, for a model of any family.

use std::fmt::Debug;
use std::sync::Arc;

use xdit_kernels::{DType, Tensor};

use super::memory::Counted;
use super::{
    Call, Dit, Guide, Plan, Planned, Recipe, Rules, Spread, Store, at_first_level, draw,
    generators, given_latents, noise, scheduler,
};
use crate::error::Result;
use crate::estimate::MemoryEstimate;
use crate::finite::{Finite, Origin, Whose};
use crate::observer::Observer;
use crate::parallel::Parallel;
use crate::pipeline::{LoadOptions, Output};
use crate::request::{Defaults, Request};
use crate::run_plan::RunPlan;
use crate::schedulers::SchedulerConfig;
use crate::source::ModelSource;

/// What the pipeline of a family of models does in its own way: its configurations know.
pub(crate) trait Family: Recipe + Debug + Send + Sync + Sized + 'static {
    /// The tokenizers.
    type Tokenizers: Debug + Send + Sync;
    /// What the encoders make of the prompts of a branch, for all images.
    type Embeds;

    /// Those of the pipeline in `source`, which fit together.
    fn read(source: &ModelSource) -> Result<Self>;

    /// The tokenizers in `source`.
    fn tokenizers(&self, source: &ModelSource) -> Result<Self::Tokenizers>;

    /// diffusers' own defaults.
    fn defaults(&self, source: &ModelSource) -> Defaults;

    /// What sizes and lengths are allowed.
    fn rules(&self) -> Rules;

    /// The scheduler that the request asks for.
    fn scheduler(&self, request: &Request) -> Result<SchedulerConfig>;

    /// What guides the request's call; an error for arguments that the family has no use for, and for prompts that do not fit
    /// each other.
    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide>;

    /// The embedded prompts of each branch, the conditional one first, each encoder's looked through by `finite`.
    fn encode(
        store: &Store<Self>,
        tokenizers: &Self::Tokenizers,
        of: (&Request, &Plan),
        finite: &Finite,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Self::Embeds>>;

    /// A branch's prompts as the transformer reads them.
    fn embed_text(
        transformer: &Self::Dit,
        embeds: &Self::Embeds,
        of: (&Request, &Plan),
        observer: &mut dyn Observer,
    ) -> Result<<Self::Dit as Dit>::Text>;

    /// Channels of the autoencoder's latents, in which noise is drawn.
    fn noise_channels(&self) -> usize;

    /// Noise `[b, c, h, w]` as diffusers holds latents between steps.
    fn of_noise(noise_bchw: Tensor) -> Result<Tensor> {
        Ok(noise_bchw)
    }
}

/// A pipeline of whichever family.
pub(crate) trait AnyPipeline: Debug + Send + Sync {
    /// What a call uses where its request says nothing.
    fn defaults(&self) -> &Defaults;

    /// An error if the weights' files are not those that were loaded.
    fn check_files(&self) -> Result<()>;

    /// Draws what `request` asks for: prompts are encoded on the current thread pool, then the ranks of `parallel` share
    /// `threads` compute threads.
    fn generate(
        &self,
        request: &Request,
        parallel: &Parallel,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Output>;
}

/// A family's pipeline.
#[derive(Debug)]
struct DitPipeline<F: Family> {
    store: Store<F>,
    tokenizers: F::Tokenizers,
    defaults: Defaults,
    options: LoadOptions,
}

/// The pipeline in `source`; of the transformer `one_stage` only, read by the first call.
pub(crate) fn load<F: Family>(
    source: &ModelSource,
    options: &LoadOptions,
    one_stage: bool,
    observer: &mut dyn Observer,
) -> Result<Box<dyn AnyPipeline>> {
    // Configurations first: what is wrong with them shows before any weight is read.
    let configs = F::read(source)?;
    let tokenizers = configs.tokenizers(source)?;
    let store = Store::load(configs, source, options, one_stage, observer)?;
    Ok(Box::new(DitPipeline::<F> {
        defaults: store.configs.defaults(source),
        store,
        tokenizers,
        options: options.clone(),
    }))
}

/// What the pipeline in `source` would do for `request`, as its configurations tell.
pub(crate) fn plan<F: Family>(
    source: &ModelSource,
    options: &LoadOptions,
    request: &Request,
    parallel: &Parallel,
) -> Result<RunPlan> {
    let configs = F::read(source)?;
    let defaults = configs.defaults(source);
    let (plan, spread, memory) = planned(&configs, &defaults, request, parallel, options)?;
    memory.check(&plan.told(&memory), 0, options.memory_limit)?;
    Ok(spread.run_plan(&plan, configs.shape(), memory))
}

/// What a request asks of these ranks, checked, and what that takes in memory, which is not.
fn planned<F: Family>(
    configs: &F,
    defaults: &Defaults,
    request: &Request,
    parallel: &Parallel,
    options: &LoadOptions,
) -> Result<(Plan, Spread, MemoryEstimate)> {
    let guide = configs.guide(request, defaults)?;
    let model = Planned {
        shape: configs.shape(),
        vae: configs.vae(),
        rules: configs.rules(),
        defaults,
    };
    let (plan, spread) = model.plan(request, guide, parallel, options.dtype)?;
    // What is wrong with these shows before any weight is read.
    let draws_noise = matches!(configs.scheduler(request)?, SchedulerConfig::Ddpm(_));
    given_latents(request, &latents_shape(configs, &plan))?;
    let counted = Counted {
        plan: &plan,
        spread: &spread,
        parallel,
        options,
        prompts: request.prompt.len(),
        draws_noise,
    };
    let memory = counted.estimate(configs);
    Ok((plan, spread, memory))
}

/// Of all images' latents, as diffusers holds them.
fn latents_shape<F: Family>(configs: &F, plan: &Plan) -> Vec<usize> {
    configs.shape().shown_shape(plan.images, plan.latent_size)
}

impl<F: Family> AnyPipeline for DitPipeline<F> {
    fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    fn check_files(&self) -> Result<()> {
        self.store.check_files()
    }

    fn generate(
        &self,
        request: &Request,
        parallel: &Parallel,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let (configs, options) = (&self.store.configs, &self.options);
        let (plan, spread, memory) = planned(configs, &self.defaults, request, parallel, options)?;
        let held = self.store.held(&memory);
        memory.check(&plan.told(&memory), held, options.memory_limit)?;
        for warning in &plan.warnings {
            observer.warning(warning);
        }
        let scheduler = scheduler(&configs.scheduler(request)?, &plan)?;
        let finite = Arc::new(Finite::new(request.allow_non_finite, options.dtype));
        let of = (request, &plan);
        let embeds = F::encode(&self.store, &self.tokenizers, of, &finite, observer)?;
        let blocks = match parallel.stage_here() {
            Some(stage) => spread.stages.blocks(stage),
            None => self.store.all_blocks(),
        };
        let painter = self.store.painter(&blocks, observer)?;
        let mut text = Vec::with_capacity(embeds.len());
        for (branch, embeds) in embeds.iter().enumerate() {
            let mut silent = ();
            // Of the branches the conditional one is shown from inside.
            let inside: &mut dyn Observer = match branch {
                0 => &mut *observer,
                _ => &mut silent,
            };
            text.push(F::embed_text(&painter.transformer, embeds, of, inside)?);
        }
        drop(embeds);
        let mut generators = generators(request)?;
        let latents = match given_latents(request, &latents_shape(configs, &plan))? {
            Some(latents) => latents.to_dtype(DType::F32)?.on(options.device),
            None => F::of_noise(noise(
                &plan,
                configs.noise_channels(),
                options,
                &mut generators,
            )?)?,
        };
        let images = Whose::images(0, plan.images);
        finite.check(&latents, images, || Origin::Latents)?;
        let latents = at_first_level(latents, &*scheduler)?;
        observer.offer("latents", &latents)?;
        let call = Call {
            latents_blc: painter.transformer.packed(&latents)?,
            painter,
            scheduler,
            plan,
            spread,
            text,
            generators,
            finite: finite.clone(),
            dtype: options.dtype,
            device: options.device,
            output: request.output,
        };
        let output = draw(call, parallel, threads, observer)?;
        finite.tell(observer);
        Ok(output)
    }
}
