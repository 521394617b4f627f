//! The pipeline of any family of models: from a request to images.

use std::fmt::Debug;
use std::sync::Arc;

use xdit_comm::Spec;
use xdit_kernels::{DType, Device, Tensor};

use super::memory::Counted;
use crate::error::{Error, Result};
use crate::files::source::ModelSource;
use crate::models::dit::Dit;
use crate::observer::Observer;
use crate::pipeline::configurations::Configurations;
use crate::pipeline::device_memory::GpuMemory;
use crate::pipeline::embeds::{EmbedTensors, EmbedsOf};
use crate::pipeline::finite::{Finite, Origin, Whose};
use crate::pipeline::options::LoadOptions;
use crate::pipeline::output::Output;
use crate::pipeline::prepare::{
    Planned, at_first_level, generators, given_latents, noise, scheduler,
};
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::run_plan::{ResolvedCall, RunPlan};
use crate::pipeline::store::{Later, ModelLoader, ModelStore};
use crate::ranks::checkpoint::Checkpoint;
use crate::ranks::idle::IdleRanks;
use crate::ranks::job::Job;
use crate::ranks::parallel::Parallel;
use crate::ranks::parallel::run::RunOn;
use crate::ranks::rank_devices::RankDevices;
use crate::ranks::run_job::run_job;
use crate::ranks::shared_steps::{KeptSpecs, continued};
use crate::schedulers::SchedulerConfig;

/// A request and the arguments that it resolves to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    pub(crate) resolved: &'a ResolvedRequest,
}

/// The part of a pipeline that differs between families: prompts and noise in the form that the transformer reads.
pub(crate) trait Family:
    ModelLoader + Configurations + Debug + Send + Sync + 'static
{
    /// The tokenizers.
    type Tokenizers: Debug + Send + Sync;
    /// The encoded prompts of one branch, for all images.
    type Embeds: EmbedTensors;

    /// Loads the tokenizers in `source`.
    fn tokenizers(&self, source: &ModelSource) -> Result<Self::Tokenizers>;

    /// Encodes the prompts of each branch, the conditional branch first. `finite` checks the output of each encoder.
    fn encode(
        store: &ModelStore<Self>,
        tokenizers: &Self::Tokenizers,
        asked: Asked<'_>,
        finite: &Finite,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Self::Embeds>>;

    /// Returns the specs of the tensors of the encoded prompts: of all branches that [`encode`](Self::encode) returns, one after
    /// another.
    fn embed_specs(&self, asked: Asked<'_>, dtype: DType) -> Result<Vec<Spec>>;

    /// Returns the prompts of a branch in the form that the transformer reads.
    fn embed_text(
        transformer: &Self::Dit,
        embeds: &Self::Embeds,
        asked: Asked<'_>,
        observer: &mut dyn Observer,
    ) -> Result<<Self::Dit as Dit>::Text>;

    /// Converts noise `[b, c, h, w]` to the form in which diffusers holds latents between steps.
    fn of_noise(noise_bchw: Tensor) -> Result<Tensor> {
        Ok(noise_bchw)
    }
}

/// A pipeline of any family.
pub(crate) trait AnyPipeline: Debug + Send + Sync {
    /// Returns the defaults for missing arguments of a request.
    fn defaults(&self) -> &Defaults;

    /// Returns the device of the pipeline.
    fn device(&self) -> &Device;

    /// Returns an error if the weights' files have changed since they were loaded.
    fn check_files(&self) -> Result<()>;

    /// Plans `request` on the ranks of `parallel`.
    fn plan(&self, request: &Request, parallel: &Parallel) -> Result<RunPlan>;

    /// Returns the components whose weights are on a device, with their bytes as plans count them.
    fn held(&self, device: &Device) -> Vec<(&'static str, u64)>;

    /// Executes `plan`. Encodes the prompts on the current thread pool. Then the ranks share `threads` compute threads. Ranks
    /// that are threads come from `idle`. With a `checkpoint`, ranks keep the finished steps there, and the call continues after
    /// those that it contains.
    fn run(
        &self,
        plan: RunPlan,
        threads: usize,
        idle: &IdleRanks,
        checkpoint: Option<&Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<Output>;
}

/// The pipeline of a family.
#[derive(Debug)]
struct DitPipeline<F: Family> {
    store: ModelStore<F>,
    tokenizers: F::Tokenizers,
    defaults: Defaults,
    options: LoadOptions,
}

/// Loads the pipeline in `source`. The first call reads what is for `later`.
pub(crate) fn load<F: Family>(
    source: &ModelSource,
    options: &LoadOptions,
    later: Later,
    observer: &mut dyn Observer,
) -> Result<Box<dyn AnyPipeline>> {
    // Configurations come first, so that their errors appear before any weight is read.
    let configs = F::read(source)?;
    let tokenizers = configs.tokenizers(source)?;
    observer.cancel_token().check()?;
    let store = ModelStore::load(configs, source, options, later, observer)?;
    Ok(Box::new(DitPipeline::<F> {
        defaults: store.configs.defaults(source),
        store,
        tokenizers,
        options: options.clone(),
    }))
}

/// Plans `request` from the configurations in `source`. Does not check whether there is enough memory.
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

/// Checks a request for these ranks and estimates its memory. Does not compare it with the available memory.
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
    let (mut resolved, partition) = model.plan(request, guide, parallel, options.dtype)?;
    let known = configs.warnings(request, &resolved);
    resolved.warnings.extend(request.unused_everywhere());
    resolved.warnings.extend(known);
    // These errors must appear before any weight is read.
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
    let memory = (counted.in_process(configs), counted.on_devices(configs));
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

/// Returns everything that a plan depends on, as text.
fn decisive<F: Family>(configs: &F, defaults: &Defaults) -> String {
    let (shape, vae, rules) = (configs.shape(), configs.vae(), configs.rules());
    format!(
        "{} {shape:?} {vae:?} {rules:?} {defaults:?}",
        F::TRANSFORMER
    )
}

/// Returns the shape of all images' latents in diffusers.
fn latents_shape<F: Family>(configs: &F, plan: &ResolvedRequest) -> Vec<usize> {
    configs.shape().shown_shape(plan.images, plan.latent_size)
}

impl<F: Family> AnyPipeline for DitPipeline<F> {
    fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    fn device(&self) -> &Device {
        &self.options.device
    }

    fn check_files(&self) -> Result<()> {
        self.store.check_files()
    }

    fn plan(&self, request: &Request, parallel: &Parallel) -> Result<RunPlan> {
        let configs = &self.store.configs;
        planned(configs, &self.defaults, request, parallel, &self.options)
    }

    fn held(&self, device: &Device) -> Vec<(&'static str, u64)> {
        self.store.held(device)
    }

    fn run(
        &self,
        run_plan: RunPlan,
        threads: usize,
        idle: &IdleRanks,
        checkpoint: Option<&Checkpoint>,
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
        let devices = RankDevices::new(parallel, &options.device);
        let blocks_on = |device: &Device| {
            let all = self.store.all_blocks();
            devices.blocks_on(device, &partition.stages, all)
        };
        let spared = |of: Option<&GpuMemory>| {
            let device = of.map_or(Some(&options.device), |of| devices.named(&of.device));
            device.map_or(0, |device| self.store.spared(device, &blocks_on(device)))
        };
        let room = |of: &GpuMemory| devices.named(&of.device)?.available_memory();
        run_plan.check_memory_beside(&spared, options.memory_limit, &room)?;
        for warning in &run_plan.warnings {
            observer.warning(warning);
        }
        let scheduler = scheduler(&configs.scheduler(request)?, &plan)?;
        let finite = Arc::new(Finite::new(request.allow_non_finite, options.dtype));
        let asked = Asked {
            request,
            resolved: &plan,
        };
        let run_on = RunOn {
            parallel,
            threads,
            device: &options.device,
            idle,
        };
        let member = run_on.join(partition.stages.placement(), observer.cancel_token())?;
        let known = match checkpoint {
            Some(checkpoint) => {
                checkpoint.begin(run_plan.identity()?, plan.images)?;
                let shape = configs.shape();
                let kept = KeptSpecs::new(&*scheduler, plan.image_tokens(), shape.token_channels());
                let known = continued(checkpoint, member.as_ref(), &kept)?;
                checkpoint.begin_part(&run_plan);
                known
            }
            None => false,
        };
        let embeds_of = EmbedsOf {
            member: member.as_ref(),
            checkpoint,
            known,
            device: &options.device,
        };
        let embeds: Vec<F::Embeds> = embeds_of.get(
            || configs.embed_specs(asked, options.dtype),
            || F::encode(&self.store, &self.tokenizers, asked, &finite, observer),
        )?;
        let load = |observer: &mut dyn Observer| -> Result<Vec<_>> {
            let on_device = devices.devices().into_iter().map(|device| {
                let model = self.store.loaded(device, &blocks_on(device), observer)?;
                Ok((device.clone(), model))
            });
            on_device.collect()
        };
        let placed = match &member {
            None => load(observer)?,
            Some(member) => member.attended(|| load(observer))??,
        };
        let loaded = placed[0].1.clone();
        let mut text = Vec::with_capacity(embeds.len());
        for (branch, embeds) in embeds.iter().enumerate() {
            let mut silent = observer.cancel_token();
            // Only the conditional branch shows its intermediate results.
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
            placed,
            scheduler,
            plan,
            partition,
            text,
            generators,
            finite: finite.clone(),
            checkpoint: checkpoint.cloned(),
            dtype: options.dtype,
            device: options.device.clone(),
            output: request.output,
        };
        let output = run_job(job, run_on, member, observer)?;
        finite.tell(observer);
        Ok(output)
    }
}
