//! Loads a pipeline and runs it once, for `generate` and `replay`.

use serde_json::{Value, json};
use xdit_comm::{Axis, Shard};
use xdit_kernels::DeviceKind;
use xdit_models::axes;
use xdit_models::quote::counted;
use xdit_models::{LoadOptions, LostRank, ModelSource, Output, Pipeline, Request, RunPlan, quote};

use crate::launch::ProcessJob;
use crate::output::record::{ContinuedRecord, FORMAT, ParallelRecord, RunRecord};
use crate::report::failure::Failure;
use crate::report::pipefusion::{self, Measured};
use crate::report::progress::RunObserver;
use crate::run::compute::Compute;
use crate::run::memory;
use crate::run::model::FoundModel;
use crate::run::process_report::ProcessReport;
use crate::run::session::Session;

/// A finished run.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Images and latents.
    pub output: Output,
    /// Everything that determines the pixels of image 0. The other images differ in `image`.
    pub record: RunRecord,
    /// The options of the computation.
    pub compute: Compute,
    /// What each process reports, if ranks are processes.
    pub processes: Vec<ProcessReport>,
    /// Processes that were lost. The ranks of threads are those of the parts of the output.
    pub lost: Vec<LostRank>,
}

/// Plans `request` from the configurations in `source`, so that its errors appear before any weight is read.
///
/// # Errors
/// Errors of the library.
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
        device: compute.device.device.clone(),
        threads: Some(compute.threads),
        variant: variant.map(str::to_owned),
        low_memory: compute.low_memory,
        ..LoadOptions::default()
    }
}

/// Loads the pipeline of `model` for the ranks of `compute`.
///
/// # Errors
/// [`Failure::Model`] for errors of the library.
pub(crate) fn load(
    model: &FoundModel,
    compute: &Compute,
    watch: &mut RunObserver,
) -> Result<Pipeline, Failure> {
    compute.log_device();
    tracing::info!(model = model.record.name, dtype = %compute.dtype, device = compute.device.names(), threads = compute.threads, "load");
    let options = options(model.record.variant.as_deref(), compute);
    let parallel = compute.parallel.clone();
    Ok(Pipeline::load_over(
        &model.source,
        &options,
        parallel,
        watch,
    )?)
}

/// Loads `model` and executes `plan`.
///
/// # Errors
/// Errors of the library, and of other ranks that are processes.
pub(crate) fn draw(
    model: &FoundModel,
    plan: RunPlan,
    compute: &Compute,
    watch: &mut RunObserver,
    job: &ProcessJob,
) -> Result<Drawn, Failure> {
    let pipeline = load(model, compute, watch)?;
    draw_with(compute, model, job, plan, |plan| pipeline.run(plan, watch))
}

/// Executes `plan` by `run`, and gathers the reports of ranks that are processes.
///
/// # Errors
/// As [`draw`].
pub(crate) fn draw_with(
    compute: &Compute,
    model: &FoundModel,
    job: &ProcessJob,
    plan: RunPlan,
    run: impl FnOnce(RunPlan) -> xdit_models::Result<Output>,
) -> Result<Drawn, Failure> {
    let seeds = quote::list(&plan.request.seeds);
    tracing::info!(images = plan.images, %seeds, "generate");
    let mut drawn = Drawn::new(model, compute, run(plan)?);
    if let Some(world) = job.world() {
        drawn.processes = ProcessReport::gather(&world, compute)?;
    }
    Ok(drawn)
}

impl Drawn {
    /// Creates the record of a finished run.
    pub(crate) fn new(model: &FoundModel, compute: &Compute, output: Output) -> Self {
        let record = RunRecord {
            format: FORMAT,
            version: concat!("xdit-rs ", env!("CARGO_PKG_VERSION")).into(),
            model: model.record.clone(),
            request: output.plan.request.clone(),
            dtype: compute.dtype.to_string(),
            device: match compute.device.device.kind() {
                DeviceKind::Cpu(_) => "cpu".into(),
                _ => compute.device.names(),
            },
            tier: compute.device.device.tier().to_string(),
            allow_tf32: compute.allow_tf32,
            parallel: None,
            continued: Vec::new(),
            image: 0,
            images: output.plan.images,
        };
        let mut drawn = Self {
            output,
            record,
            compute: compute.clone(),
            processes: Vec::new(),
            lost: Vec::new(),
        };
        drawn.record = drawn.record_of(0);
        drawn
    }

    /// Returns the record of image `image`, with the measurements of its replica.
    pub(crate) fn record_of(&self, image: usize) -> RunRecord {
        let mut record = self.record.clone();
        record.image = image;
        let mut parts = self.output.parts.iter().map(|part| {
            // Options of the flags; the plan has what follows from the degrees.
            let parallel = ParallelRecord::of(&self.compute.parallel, &part.plan);
            let first_step = part.first_steps.get(image).copied().unwrap_or(0);
            ContinuedRecord {
                first_step,
                parallel,
            }
        });
        record.parallel = parts.next().and_then(|first| first.parallel);
        record.continued = parts.collect();
        let last = record.continued.last_mut();
        let last = last.map_or(&mut record.parallel, |part| &mut part.parallel);
        let pipefusion = last.as_mut().and_then(|p| p.pipefusion.as_mut());
        if let Some(pipefusion) = pipefusion {
            let (images, replicas) = (record.images, self.output.plan.degrees.data);
            let replica = (0..replicas)
                .position(|replica| image < Shard::of(images, replicas, replica).end());
            let report = self.output.pipefusion.get(replica.unwrap_or(0));
            pipefusion.measured = report.map(Measured::of).unwrap_or_default();
        }
        record
    }

    /// Returns the common part of all reports: the run, its times and its memory.
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
            "allow_tf32": self.record.allow_tf32,
            "threads": self.compute.threads,
            "ranks": self.ranks(),
            "processes": self.processes,
            "pipefusion": self.pipefusion(),
            "seconds": seconds,
            "step_seconds": watch.step_seconds,
            "peak_memory_bytes": memory::peak_bytes(),
            "peak_device_memory_bytes": self.compute.device_peaks(),
            "warnings": watch.warnings,
        })
    }

    /// Returns the mesh, and the messages and the memory of each rank.
    pub(crate) fn ranks(&self) -> Value {
        let of_plan = |plan: &RunPlan| {
            let axis = |axis: Axis| (axis.name().to_owned(), plan.degrees.of(axis).into());
            serde_json::Map::from_iter(axes::ALL.map(axis))
        };
        let of_lost = |lost: &LostRank| json!({"rank": lost.rank, "reason": lost.reason});
        let parts = self.output.parts.iter().map(|part| {
            json!({
                "degrees": of_plan(&part.plan),
                "first_step": part.first_step(),
                "lost": part.lost.as_ref().map(of_lost),
            })
        });
        let of_parts = self
            .output
            .parts
            .iter()
            .filter_map(|part| part.lost.as_ref());
        let lost: Vec<Value> = match self.lost[..] {
            [] => of_parts.map(of_lost).collect(),
            // Also those that were lost before a part began, or while others were.
            _ => self.lost.iter().map(of_lost).collect(),
        };
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
            "degrees": of_plan(&self.output.plan),
            "mesh_order": self.output.plan.degrees.order,
            "parts": parts.collect::<Vec<_>>(),
            "lost": lost,
            "communication": sent.collect::<Vec<_>>(),
            "memory": held.collect::<Vec<_>>(),
        })
    }

    /// Returns stages and patches, and the measurements of each replica.
    pub(crate) fn pipefusion(&self) -> Value {
        let max_drift = self.compute.parallel.pipefusion.max_drift;
        pipefusion::report(&self.output.plan, max_drift, &self.output.pipefusion)
    }

    /// Returns the same as a phrase, if there were several patches: `4 patches, drift 0.12 at most`.
    pub(crate) fn patches(&self) -> Option<String> {
        let max_drift = self.compute.parallel.pipefusion.max_drift;
        pipefusion::phrase(&self.output.plan, max_drift, &self.output.pipefusion)
    }

    /// Returns the same as a line: `256×256, 20 steps, f32: load 0.05 s, …; peak memory 180 MiB`.
    pub(crate) fn summary(&self, session: &Session, watch: &RunObserver) -> String {
        let plan = &self.output.plan;
        let mut line = format!(
            "{}×{}, {}, {}: ",
            plan.width,
            plan.height,
            counted(plan.schedule.steps, "step"),
            self.record.dtype
        );
        let degrees = plan.degrees;
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
        let of_processes = self.processes.iter().filter_map(|it| it.peak_memory_bytes);
        if let Some(bytes) = of_processes.max() {
            let (bytes, ranks) = (memory::shown(bytes), self.processes.len());
            line += &format!("; peak memory of {ranks} processes: at most {bytes} each");
        } else if let Some(bytes) = memory::peak_bytes() {
            line += &format!("; peak memory {}", memory::shown(bytes));
        }
        for (device, bytes) in self.compute.device_peaks() {
            line += &format!("; of {device} {}", memory::shown(bytes));
        }
        line
    }
}
