//! From a request to images, for a model of any family.

use std::fmt::Debug;
use std::sync::Arc;

use xdit_kernels::{DType, Tensor};

use super::memory::Counted;
use crate::error::{Error, Result};
use crate::files::source::ModelSource;
use crate::models::dit::Dit;
use crate::observer::Observer;
use crate::pipeline::configurations::Configurations;
use crate::pipeline::finite::{Finite, Origin, Whose};
use crate::pipeline::options::LoadOptions;
use crate::pipeline::output::Output;
use crate::pipeline::prepare::{
    Planned, at_first_level, generators, given_latents, noise, scheduler,
};
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::run_plan::{ResolvedCall, RunPlan};
use crate::pipeline::store::{ModelLoader, ModelStore};
use crate::ranks::idle::IdleRanks;
use crate::ranks::job::Job;
use crate::ranks::parallel::Parallel;
use crate::ranks::parallel::run::RunOn;
use crate::ranks::run_job::run_job;
use crate::schedulers::SchedulerConfig;

/// What a call was asked for, and what that comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    pub(crate) resolved: &'a ResolvedRequest,
}

/// How the pipeline of a family of models turns prompts and noise into what its transformer reads.
pub(crate) trait Family:
    ModelLoader + Configurations + Debug + Send + Sync + 'static
{
    /// The tokenizers.
    type Tokenizers: Debug + Send + Sync;
    /// What the encoders make of the prompts of a branch, for all images.
    type Embeds;

    /// The tokenizers in `source`.
    fn tokenizers(&self, source: &ModelSource) -> Result<Self::Tokenizers>;

    /// The embedded prompts of each branch, the conditional one first, each encoder's looked through by `finite`.
    fn encode(
        store: &ModelStore<Self>,
        tokenizers: &Self::Tokenizers,
        asked: Asked<'_>,
        finite: &Finite,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Self::Embeds>>;

    /// A branch's prompts as the transformer reads them.
    fn embed_text(
        transformer: &Self::Dit,
        embeds: &Self::Embeds,
        asked: Asked<'_>,
        observer: &mut dyn Observer,
    ) -> Result<<Self::Dit as Dit>::Text>;

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

    /// What is going to be done for `request` on the ranks of `parallel`.
    fn plan(&self, request: &Request, parallel: &Parallel) -> Result<RunPlan>;

    /// Draws what `plan` says: prompts are encoded on the current thread pool, then the ranks share `threads` compute threads. Ranks
    /// that are threads come from `idle`.
    fn run(
        &self,
        plan: RunPlan,
        threads: usize,
        idle: &IdleRanks,
        observer: &mut dyn Observer,
    ) -> Result<Output>;
}

/// A family's pipeline.
#[derive(Debug)]
struct DitPipeline<F: Family> {
    store: ModelStore<F>,
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
    let store = ModelStore::load(configs, source, options, one_stage, observer)?;
    Ok(Box::new(DitPipeline::<F> {
        defaults: store.configs.defaults(source),
        store,
        tokenizers,
        options: options.clone(),
    }))
}

/// What the pipeline in `source` would do for `request`, as its configurations tell; whether there is memory for it is not
/// looked at.
pub(crate) fn plan<F: Family>(
    source: &ModelSource,
    options: &LoadOptions,
    request: &Request,
    parallel: &Parallel,
) -> Result<RunPlan> {
    let configs = F::read(source)?;
    let defaults = configs.defaults(source);
    planned(&configs, &defaults, request, parallel, options)
}

/// What a request asks of these ranks, checked, and what that takes in memory, which is not.
fn planned<F: Family>(
    configs: &F,
    defaults: &Defaults,
    request: &Request,
    parallel: &Parallel,
    options: &LoadOptions,
) -> Result<RunPlan> {
    request.check()?;
    let guide = configs.guide(request, defaults)?;
    let model = Planned {
        shape: configs.shape(),
        vae: configs.vae(),
        rules: configs.rules(),
        defaults,
    };
    let (resolved, partition) = model.plan(request, guide, parallel, options.dtype)?;
    // What is wrong with these shows before any weight is read.
    let draws_noise = matches!(configs.scheduler(request)?, SchedulerConfig::Ddpm(_));
    given_latents(request, &latents_shape(configs, &resolved))?;
    let counted = Counted {
        plan: &resolved,
        partition: &partition,
        parallel,
        options,
        prompts: request.prompt.len(),
        draws_noise,
    };
    let memory = counted.estimate(configs);
    let served = resolved.completed(request, defaults);
    let call = ResolvedCall {
        request: request.clone(),
        resolved,
        partition,
        parallel: parallel.clone(),
        dtype: options.dtype,
        configurations: decisive(configs, defaults),
    };
    Ok(RunPlan::new(call, served, configs.shape(), memory))
}

/// What plans depend on, as text.
fn decisive<F: Family>(configs: &F, defaults: &Defaults) -> String {
    let (shape, vae, rules) = (configs.shape(), configs.vae(), configs.rules());
    format!(
        "{} {shape:?} {vae:?} {rules:?} {defaults:?}",
        F::TRANSFORMER
    )
}

/// Of all images' latents, as diffusers holds them.
fn latents_shape<F: Family>(configs: &F, plan: &ResolvedRequest) -> Vec<usize> {
    configs.shape().shown_shape(plan.images, plan.latent_size)
}

impl<F: Family> AnyPipeline for DitPipeline<F> {
    fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    fn check_files(&self) -> Result<()> {
        self.store.check_files()
    }

    fn plan(&self, request: &Request, parallel: &Parallel) -> Result<RunPlan> {
        let configs = &self.store.configs;
        planned(configs, &self.defaults, request, parallel, &self.options)
    }

    fn run(
        &self,
        run_plan: RunPlan,
        threads: usize,
        idle: &IdleRanks,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let (configs, options) = (&self.store.configs, &self.options);
        let call = run_plan.call.clone();
        if call.dtype != options.dtype || call.configurations != decisive(configs, &self.defaults) {
            let allowed =
                "one that was made with the configurations and the dtype of this pipeline";
            return Err(Error::invalid(
                "plan",
                "a plan for another pipeline",
                allowed,
            ));
        }
        let (request, parallel) = (&call.request, &call.parallel);
        let (plan, partition) = (call.resolved.clone(), call.partition.clone());
        let held = self.store.held(&run_plan.memory);
        run_plan.check_memory_beside(held, options.memory_limit)?;
        for warning in &plan.warnings {
            observer.warning(warning);
        }
        let scheduler = scheduler(&configs.scheduler(request)?, &plan)?;
        let finite = Arc::new(Finite::new(request.allow_non_finite, options.dtype));
        let asked = Asked {
            request,
            resolved: &plan,
        };
        let embeds = F::encode(&self.store, &self.tokenizers, asked, &finite, observer)?;
        let blocks = match parallel.stage_here() {
            Some(stage) => partition.stages.blocks(stage),
            None => self.store.all_blocks(),
        };
        let loaded = self.store.loaded(&blocks, observer)?;
        let mut text = Vec::with_capacity(embeds.len());
        for (branch, embeds) in embeds.iter().enumerate() {
            let mut silent = ();
            // Of the branches the conditional one is shown from inside.
            let inside: &mut dyn Observer = match branch {
                0 => &mut *observer,
                _ => &mut silent,
            };
            text.push(F::embed_text(&loaded.transformer, embeds, asked, inside)?);
        }
        drop(embeds);
        let mut generators = generators(request)?;
        let latents = match given_latents(request, &latents_shape(configs, &plan))? {
            Some(latents) => latents.to_dtype(DType::F32)?.to_device(&options.device)?,
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
        let job = Job {
            run_plan,
            latents_blc: loaded.transformer.packed(&latents)?,
            loaded,
            scheduler,
            plan,
            partition,
            text,
            generators,
            finite: finite.clone(),
            dtype: options.dtype,
            device: options.device.clone(),
            output: request.output,
        };
        let run_on = RunOn {
            parallel,
            threads,
            idle,
        };
        let output = run_job(job, run_on, observer)?;
        finite.tell(observer);
        Ok(output)
    }
}
