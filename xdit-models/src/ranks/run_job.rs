//! Draws the images of a call on all its ranks, from embedded prompts and noise.

use std::sync::Arc;

use xdit_comm::Shard;
use xdit_kernels::Tensor;
use xdit_pipefusion::Report;

use super::checkpoint::ImageBatch;
use super::job::Job;
use super::replica::Replica;
use super::run_part::RunPart;
use crate::error::{Error, Result};
use crate::models::dit::Dit;
use crate::observer::Observer;
use crate::pipeline::finite::{Origin, Whose};
use crate::pipeline::image::Image;
use crate::pipeline::output::Output;
use crate::pipeline::request::OutputType;
use crate::ranks::compose::RankContext;
use crate::ranks::gathered::gathered;
use crate::ranks::parallel::run::RunOn;
use crate::ranks::run_rank::{DecodeOn, RankOutput, run_rank};

/// Draws the call's images on the ranks of `run_on`. `member` is what [`RunOn::join`] returned. Latents are the tokens.
pub(crate) fn run_job<D: Dit>(
    call: Job<D>,
    run_on: RunOn<'_>,
    member: Option<RankContext>,
    observer: &mut dyn Observer,
) -> Result<Output> {
    let parallel = run_on.parallel;
    let call = Arc::new(call);
    let data = parallel.degrees.data;
    let batches = batches(&call, data)?;
    let decode = match (call.output, parallel.shares_decode()) {
        (OutputType::Latent, _) => None,
        (OutputType::Image, true) => Some(DecodeOn::AllRanks),
        (OutputType::Image, false) => Some(DecodeOn::FirstRank),
    };
    if observer.wants_tensors() && data > 1 {
        return Err(Error::invalid(
            "data_parallel_degree",
            data,
            "1 where every stage is shown",
        ));
    }
    let placement = call.partition.stages.placement();
    let of_batch = |batch: &Vec<Replica<D>>| batch.iter().map(|replica| replica.images.len).sum();
    let sizes: Vec<usize> = batches.iter().map(of_batch).collect();
    let work = move |rank_context: &RankContext, observer: &mut dyn Observer| {
        run_rank(&batches, rank_context, decode, observer)
    };
    let rank_context = member.clone();
    let mut done = run_on.run(placement, member, work, observer)?;
    if let Some(rank_context) = rank_context {
        let own = done.swap_remove(0);
        done = gathered(&rank_context, own, &sizes)?;
    }
    let output = joined(&call, done)?;
    warn_of_drift(&output.pipefusion, observer);
    Ok(output)
}

/// Divides the images of each batch of the call among `count` replicas.
fn batches<D: Dit>(call: &Arc<Job<D>>, count: usize) -> Result<Vec<Vec<Replica<D>>>> {
    let replica = |batch: &ImageBatch, index: usize| {
        let own = Shard::of(batch.images.len, count, index);
        let images = Shard {
            start: batch.images.start + own.start,
            len: own.len,
        };
        let text = call.text.iter();
        let text = text.map(|text| D::select(text, images.start, images.len));
        let narrow = |of: &Tensor, start: usize| of.narrow(0, start, own.len);
        let (latents_blc, history) = match &batch.kept {
            None => (narrow(&call.latents_blc, images.start)?, Vec::new()),
            Some((latents_blc, history)) => {
                let history = history.iter().map(|of| narrow(of, own.start));
                let history = history.collect::<Result<_, _>>()?;
                (narrow(latents_blc, own.start)?, history)
            }
        };
        Ok(Replica {
            images,
            text: text.collect::<Result<_>>()?,
            latents_blc,
            first_step: batch.first_step,
            history,
            call: call.clone(),
        })
    };
    let batches = call.batches()?;
    let of_batch = |batch| (0..count).map(|index| replica(batch, index)).collect();
    batches.iter().map(of_batch).collect()
}

/// Joins the outputs of the ranks, in the order of the images of the call. They are of the pipeline's device again.
fn joined<D: Dit>(call: &Job<D>, done: Vec<RankOutput>) -> Result<Output> {
    done.iter().for_each(|part| call.device.wait(&part.done));
    let one = done.len() == 1;
    let join = |parts: Vec<&Tensor>| -> Result<Option<Tensor>> {
        let parts = parts.into_iter().map(|part| part.to_device(&call.device));
        let parts = parts.collect::<xdit_kernels::Result<Vec<_>>>()?;
        Ok(match &parts[..] {
            [] => None,
            // One part needs no copy.
            [one] => Some(one.clone()),
            _ => {
                let views: Vec<_> = parts.iter().map(Tensor::view).collect();
                Some(Tensor::cat(&views, 0)?)
            }
        })
    };
    let batches = 0..done.first().map_or(0, |part| part.latents.len());
    let in_order = |of: fn(&RankOutput) -> &[Option<Tensor>], speaks: fn(&RankOutput) -> bool| {
        let of_batch = |batch: usize| {
            let ranks = done.iter().filter(|part| one || speaks(part));
            ranks.filter_map(move |part| of(part)[batch].as_ref())
        };
        join(batches.clone().flat_map(of_batch).collect())
    };
    let float = in_order(|part| &part.float, |_| true)?;
    // All ranks of a replica return its latents, so one rank of each replica is enough.
    let latents = in_order(|part| &part.latents, |part| part.leads)?;
    let latents = match latents {
        Some(latents) => {
            let transformer = &call.model_on(&call.device)?.transformer;
            let shown = transformer.shown(&latents, call.plan.latent_size)?;
            let rounded = shown.to_dtype(call.dtype)?;
            if call.output == OutputType::Latent {
                let images = Whose::images(0, rounded.dim(0));
                call.finite.check(&rounded, images, || Origin::Rounding)?;
            }
            rounded
        }
        None => Tensor::zeros([0], call.dtype, &call.device)?,
    };
    Ok(Output {
        images: float
            .as_ref()
            .map(Image::from_planes)
            .transpose()?
            .unwrap_or_default(),
        float,
        latents,
        plan: call.run_plan.clone(),
        memory: done.iter().filter_map(|part| part.memory).collect(),
        pipefusion: done
            .iter()
            .filter(|part| one || part.leads)
            .filter_map(|part| part.report.clone())
            .collect(),
        communication: done.into_iter().filter_map(|part| part.stats).collect(),
        parts: match &call.checkpoint {
            Some(checkpoint) => checkpoint.parts(),
            None => vec![RunPart::whole(&call.run_plan)],
        },
    })
}

/// Above this the keys and values that were used one step late were far from the right ones: pictures visibly differ from
/// those of one rank (docs/fidelity.md).
const NOTABLE_DRIFT: f32 = 0.2;

/// Warns if stale keys and values probably changed the image visibly.
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
             `warmup_steps`, or `max_drift`, bring the image nearer to that of one rank"
        ));
    }
}
