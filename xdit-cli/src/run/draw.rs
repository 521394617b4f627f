//! Loads a pipeline and runs it once: the part that `generate` and `replay` share.

use serde_json::{Value, json};
use xdit_comm::{Axis, Shard};
use xdit_kernels::{DType, Device};
use xdit_models::axes;
use xdit_models::{LoadOptions, ModelSource, Output, Parallel, Pipeline, Request, RunPlan};

use crate::output::record::{FORMAT, ParallelRecord, RunRecord};
use crate::report::failure::Failure;
use crate::report::pipefusion::{self, Measured};
use crate::report::progress::RunObserver;
use crate::run::memory;
use crate::run::model::FoundModel;
use crate::run::session::Session;

/// How to compute.
#[derive(Clone, Debug)]
pub(crate) struct Compute {
    /// Of weights and activations.
    pub dtype: DType,
    /// Where.
    pub device: Device,
    /// With how many threads.
    pub threads: usize,
    /// Whether text encoders are let go before the rest is read.
    pub low_memory: bool,
    /// Over which ranks.
    pub parallel: Parallel,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Images and latents.
    pub output: Output,
    /// What decides the pixels of image 0; the others differ in `image`.
    pub record: RunRecord,
    /// How it was computed.
    pub compute: Compute,
}

/// What `request` will take, by the configurations in `source`: what these refuse is refused before any weight is read.
///
/// # Errors
/// Whatever the library refuses.
pub(crate) fn plan(
    source: &ModelSource,
    variant: Option<&str>,
    request: &Request,
    compute: &Compute,
    memory_limit: Option<u64>,
) -> xdit_models::Result<RunPlan> {
    let options = LoadOptions {
        memory_limit,
        ..options(variant, compute)
    };
    Pipeline::plan(source, &options, request, &compute.parallel)
}

fn options(variant: Option<&str>, compute: &Compute) -> LoadOptions {
    LoadOptions {
        dtype: compute.dtype,
        device: compute.device.clone(),
        threads: Some(compute.threads),
        variant: variant.map(str::to_owned),
        low_memory: compute.low_memory,
        ..LoadOptions::default()
    }
}

/// The pipeline of `model`, spread over the ranks that `compute` asks for.
///
/// # Errors
/// [`Failure::Model`] for whatever the library refuses.
pub(crate) fn load(
    model: &FoundModel,
    compute: &Compute,
    watch: &mut RunObserver,
) -> Result<Pipeline, Failure> {
    tracing::info!(model = model.record.name, dtype = %compute.dtype, device = %compute.device, threads = compute.threads, "load");
    let options = options(model.record.variant.as_deref(), compute);
    let parallel = compute.parallel.clone();
    Ok(Pipeline::load_over(
        &model.source,
        &options,
        parallel,
        watch,
    )?)
}

/// Runs what was planned for `model`.
///
/// # Errors
/// [`Failure::Model`] for whatever the library refuses.
pub(crate) fn draw(
    model: &FoundModel,
    plan: RunPlan,
    compute: &Compute,
    watch: &mut RunObserver,
) -> Result<Drawn, Failure> {
    let pipeline = load(model, compute, watch)?;
    tracing::info!(images = plan.images, seeds = ?plan.request.seeds, "generate");
    let output = pipeline.run(plan, watch)?;
    Ok(Drawn::new(model, compute, output))
}

impl Drawn {
    /// A finished run and its record.
    pub(crate) fn new(model: &FoundModel, compute: &Compute, output: Output) -> Self {
        let record = RunRecord {
            format: FORMAT,
            version: concat!("xdit-rs ", env!("CARGO_PKG_VERSION")).into(),
            model: model.record.clone(),
            request: output.plan.request.clone(),
            dtype: compute.dtype.to_string(),
            device: "cpu".into(),
            tier: compute.device.tier().to_string(),
            parallel: ParallelRecord::of(&compute.parallel, &output.plan),
            image: 0,
            images: output.plan.images,
        };
        let mut drawn = Self {
            output,
            record,
            compute: compute.clone(),
        };
        drawn.record = drawn.record_of(0);
        drawn
    }

    /// The record of image `image`, with what its replica has measured.
    pub(crate) fn record_of(&self, image: usize) -> RunRecord {
        let mut record = self.record.clone();
        record.image = image;
        let pipefusion = record.parallel.as_mut().and_then(|p| p.pipefusion.as_mut());
        if let Some(pipefusion) = pipefusion {
            let (images, replicas) = (record.images, self.output.plan.degrees.data);
            let replica = (0..replicas)
                .position(|replica| image < Shard::of(images, replicas, replica).end());
            let report = self.output.pipefusion.get(replica.unwrap_or(0));
            pipefusion.measured = report.map(Measured::of).unwrap_or_default();
        }
        record
    }

    /// What every report says: what ran, how long, in how much memory.
    pub(crate) fn report(&self, session: &Session, watch: &RunObserver) -> Value {
        let mut seconds = watch.seconds_json();
        seconds.insert(
            "total".into(),
            session.started.elapsed().as_secs_f64().into(),
        );
        json!({
            "version": self.record.version,
            "model": self.record.model,
            "request": self.record.request,
            "images": self.record.images,
            "dtype": self.record.dtype,
            "device": self.record.device,
            "tier": self.record.tier,
            "threads": self.compute.threads,
            "ranks": self.ranks(),
            "pipefusion": self.pipefusion(),
            "seconds": seconds,
            "step_seconds": watch.step_seconds,
            "peak_memory_bytes": memory::peak_bytes(),
            "warnings": watch.warnings,
        })
    }

    /// The mesh, what each rank sent over each of its axes, and what it held.
    pub(crate) fn ranks(&self) -> Value {
        let degrees = self.compute.parallel.degrees;
        let axes = axes::ALL.map(|axis| (axis.name().to_owned(), degrees.of(axis).into()));
        let sent = self.output.communication.iter().enumerate();
        let sent = sent.flat_map(|(rank, stats)| {
            stats.iter().map(move |((operation, axis), total)| {
                json!({
                    "rank": rank,
                    "operation": operation,
                    "axis": axis.map(Axis::name),
                    "calls": total.calls,
                    "bytes": total.bytes,
                    "copied_bytes": total.copied,
                    "wait_seconds": total.waited.as_secs_f64(),
                })
            })
        });
        let held = self.output.memory.iter().enumerate().map(|(rank, memory)| {
            json!({
                "rank": rank,
                "parameter_bytes": memory.parameter_bytes,
                "kv_bytes": memory.kv_bytes,
                "text_kv_bytes": memory.text_kv_bytes,
            })
        });
        json!({
            "degrees": serde_json::Map::from_iter(axes),
            "communication": sent.collect::<Vec<_>>(),
            "memory": held.collect::<Vec<_>>(),
        })
    }

    /// Stages and patches, and what each replica measured.
    pub(crate) fn pipefusion(&self) -> Value {
        let max_drift = self.compute.parallel.pipefusion.max_drift;
        pipefusion::report(&self.output.plan, max_drift, &self.output.pipefusion)
    }

    /// The same in a phrase, if there were several patches: `4 patches, drift 0.12 at most`.
    pub(crate) fn patches(&self) -> Option<String> {
        let max_drift = self.compute.parallel.pipefusion.max_drift;
        pipefusion::phrase(&self.output.plan, max_drift, &self.output.pipefusion)
    }

    /// The same in half a line: `256×256, 20 steps, f32: load 0.05 s, …; peak memory 180 MiB`.
    pub(crate) fn summary(&self, session: &Session, watch: &RunObserver) -> String {
        let plan = &self.output.plan;
        let mut line = format!(
            "{}×{}, {} steps, {}: ",
            plan.width, plan.height, plan.schedule.steps, self.record.dtype
        );
        let degrees = self.compute.parallel.degrees;
        for axis in axes::ALL.into_iter().filter(|axis| degrees.of(*axis) > 1) {
            line += &format!("{axis} {}, ", degrees.of(axis));
        }
        if let Some(patches) = self.patches() {
            line += &format!("{patches}, ");
        }
        for (name, seconds) in watch.phases() {
            line += &format!("{name} {seconds:.2} s, ");
        }
        line += &format!("total {:.2} s", session.started.elapsed().as_secs_f64());
        if let Some(bytes) = memory::peak_bytes() {
            line += &format!("; peak memory {}", memory::shown(bytes));
        }
        line
    }
}
