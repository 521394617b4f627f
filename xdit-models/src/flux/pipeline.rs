//! Prompt to image with Flux.1 (diffusers `pipelines/flux/pipeline_flux.py`, `FluxPipeline`).
//!
//! Shapes: b images, l tokens, c channels.

use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use xdit_comm::{Shard, Stats};
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Report;

use super::components::{Components, Painter};
use super::configs::Configs;
use super::latents;
use super::plan::Plan;
use super::replica::Replica;
use super::spread::Spread;
use super::transformer::FluxText;
use crate::compose::Team;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::noise::{Generator, randn_tensor};
use crate::observer::Observer;
use crate::parallel::Parallel;
use crate::pipeline::{LoadOptions, Output};
use crate::request::{Defaults, OutputType, Request};
use crate::run_plan::{RankMemory, RunPlan};
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
        let components = Components::load(source, options, one_stage, observer)?;
        Ok(Self {
            defaults: components.configs.defaults(source),
            components,
            dtype: options.dtype,
            device: options.device,
            memory_limit: options.memory_limit,
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
        let (dtype, limit) = (options.dtype, options.memory_limit);
        let (plan, spread) = planned(&configs, &defaults, request, parallel, dtype, limit)?;
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
        let configs = &self.components.configs;
        let (plan, spread) = planned(
            configs,
            &self.defaults,
            request,
            parallel,
            self.dtype,
            self.memory_limit,
        )?;
        let (shares, branches) = (parallel.shares_decode(), request.branches()?);
        for warning in &plan.warnings {
            observer.warning(warning);
        }

        let embeds = self.components.encode(
            &branches,
            request.num_images_per_prompt,
            plan.text_len,
            observer,
        )?;
        let blocks = match parallel.stage_here() {
            Some(stage) => spread.stages.blocks(stage),
            None => 0..configs.flux.block_count(),
        };
        let painter = self.components.painter(blocks, observer)?;
        let text = embeds
            .iter()
            .map(|[embeds, pooled]| painter.transformer.embed_text(embeds, pooled))
            .collect::<Result<Vec<_>>>()?;
        drop(embeds);
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
        let replicas = self.replicas(
            &painter,
            (&plan, &spread),
            &text,
            &latents_blc,
            &generators,
            parallel.degrees.data,
        )?;
        let decode = match (request.output, shares) {
            (OutputType::Latent, _) => None,
            (OutputType::Image, true) => Some(By::AllRanks),
            (OutputType::Image, false) => Some(By::FirstRank),
        };
        let done = match parallel.is_alone() {
            true => vec![part(&replicas[0], &Team::alone(), decode, observer)?],
            false => {
                if observer.wants_tensors() && replicas.len() > 1 {
                    return Err(Error::invalid(
                        "data_parallel_degree",
                        replicas.len(),
                        "1 where every stage is shown",
                    ));
                }
                // The first rank is the one that is watched.
                let watched = Mutex::new(Some(&mut *observer));
                parallel.run(threads, |team| {
                    let replica = &replicas[team.replica()];
                    let first = team.leads() && team.replica() == 0;
                    let mut taken = first
                        .then(|| {
                            watched
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .take()
                        })
                        .flatten();
                    let mut silent = ();
                    let observer: &mut dyn Observer = match &mut taken {
                        Some(observer) => &mut **observer,
                        None => &mut silent,
                    };
                    part(replica, team, decode, observer)
                })?
            }
        };
        let output = self.joined(&plan, done)?;
        warn_of_drift(&output.pipefusion, observer);
        Ok(output)
    }

    /// The call's images, dealt out.
    fn replicas<'a>(
        &'a self,
        painter: &'a Painter,
        (plan, spread): (&'a Plan, &'a Spread),
        text: &[FluxText],
        latents_blc: &Tensor,
        generators: &[Generator],
        count: usize,
    ) -> Result<Vec<Replica<'a>>> {
        (0..count)
            .map(|index| {
                let images = Shard::of(plan.images, count, index);
                let text = text
                    .iter()
                    .map(|text| text.select(images.start, images.len));
                Ok(Replica {
                    painter,
                    scheduler: &self.components.configs.scheduler,
                    plan,
                    spread,
                    images,
                    text: text.collect::<Result<_>>()?,
                    latents_blc: latents_blc.narrow(0, images.start, images.len)?,
                    generators: generators.to_vec(),
                    device: self.device,
                })
            })
            .collect()
    }

    /// One output of what the ranks made, in the order of the call's images.
    fn joined(&self, plan: &Plan, done: Vec<Part>) -> Result<Output> {
        let join = |parts: Vec<&Tensor>| -> Result<Option<Tensor>> {
            let views: Vec<_> = parts.into_iter().map(Tensor::view).collect();
            Ok(match views.is_empty() {
                true => None,
                false => Some(Tensor::cat(&views, 0)?),
            })
        };
        let float = join(done.iter().filter_map(|part| part.float.as_ref()).collect())?;
        // All ranks of a replica have its latents; where this process is one of them, these are its own.
        let one = done.len() == 1;
        let speaks = |part: &&Part| one || part.leads;
        let latents = join(
            done.iter()
                .filter(speaks)
                .filter_map(|part| part.latents.as_ref())
                .collect(),
        )?;
        let latents = match latents {
            Some(latents) => latents.to_dtype(self.dtype)?,
            None => Tensor::zeros([0], self.dtype, self.device)?,
        };
        Ok(Output {
            images: float
                .as_ref()
                .map(Image::from_planes)
                .transpose()?
                .unwrap_or_default(),
            float,
            latents,
            height: plan.height,
            width: plan.width,
            memory: done.iter().filter_map(|part| part.memory).collect(),
            pipefusion: done
                .iter()
                .filter(speaks)
                .filter_map(|part| part.report.clone())
                .collect(),
            communication: done.into_iter().filter_map(|part| part.stats).collect(),
        })
    }

    /// The initial latents, f32 `[b, l, c]`: drawn in the pipeline's dtype and in diffusers' order, then packed.
    fn noise(&self, plan: &Plan, generators: &mut [Generator]) -> Result<Tensor> {
        let channels = self.components.configs.flux.in_channels / 4;
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
}

/// What a request asks of these ranks, checked.
fn planned(
    configs: &Configs,
    defaults: &Defaults,
    request: &Request,
    parallel: &Parallel,
    dtype: DType,
    memory_limit: Option<u64>,
) -> Result<(Plan, Spread)> {
    let (flux, vae) = (&configs.flux, &configs.vae);
    let mut plan = Plan::new(request, defaults, flux, vae)?;
    if parallel.shares_decode() {
        plan.decode_in_bands();
    }
    plan.decoded_at_once = parallel.replicas_here().min(plan.images);
    let branches = 1 + usize::from(request.branches()?.negative.is_some());
    let spread = Spread::new(&plan, parallel, flux, dtype, branches)?;
    let kept = spread.kept_bytes(&plan, flux) / parallel.processes() as u64;
    plan.check_memory(dtype, flux, vae, kept, memory_limit)?;
    Ok((plan, spread))
}

/// Above this the keys and values that were used one step late were far from the right ones: pictures visibly differ from
/// those of one rank (docs/fidelity.md).
const NOTABLE_DRIFT: f32 = 0.5;

/// Tells when staleness is likely to show.
fn warn_of_drift(reports: &[Report], observer: &mut dyn Observer) {
    let lossy = |report: &Report| {
        let steps = report.drift.iter().enumerate();
        let lossy = steps.filter(|(step, _)| !report.whole.contains(step));
        lossy
            .filter_map(|(step, drift)| Some((step, (*drift)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    };
    let worst = reports
        .iter()
        .filter_map(lossy)
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((step, drift)) = worst.filter(|(_, drift)| *drift > NOTABLE_DRIFT) {
        observer.warning(&format!(
            "keys and values that were used one step late had changed by {drift:.2} (relative L2) in step {step}: more \
             warmup_steps, or max_drift, bring the image nearer to that of one rank"
        ));
    }
}

/// Who decodes a replica's images.
#[derive(Clone, Copy, Debug)]
enum By {
    FirstRank,
    AllRanks,
}

/// What one rank made.
struct Part {
    /// Whether this rank speaks for its replica.
    leads: bool,
    /// The final latents of its replica's images.
    latents: Option<Tensor>,
    /// Its replica's images, on the rank that speaks for the replica.
    float: Option<Tensor>,
    stats: Option<Stats>,
    memory: Option<RankMemory>,
    report: Option<Report>,
}

/// This rank's part in its replica's images; a replica without images has nothing to do.
fn part(
    replica: &Replica<'_>,
    team: &Team,
    decode: Option<By>,
    observer: &mut dyn Observer,
) -> Result<Part> {
    let (mut latents, mut float, mut memory, mut report) = (None, None, None, None);
    if replica.images.len > 0 {
        let done = replica.denoise(team, observer)?;
        let latents_blc = done.latents_blc;
        (memory, report) = (Some(done.memory), Some(done.report));
        float = match decode {
            Some(By::AllRanks) => replica.decode(&latents_blc, Some(team), observer)?,
            Some(By::FirstRank) if team.leads() => replica.decode(&latents_blc, None, observer)?,
            _ => None,
        };
        latents = Some(latents_blc);
    }
    Ok(Part {
        leads: team.leads(),
        latents,
        float,
        stats: team.stats(),
        memory,
        report,
    })
}
