//! Loads a pipeline and runs it once: the part that `generate` and `replay` share.

use serde_json::{Value, json};
use xdit_kernels::{DType, Device};
use xdit_models::{LoadOptions, Output, Pipeline, Request};

use crate::failure::Failure;
use crate::model::Model;
use crate::record::{FORMAT, RunRecord};
use crate::session::Session;
use crate::watch::Watch;
use crate::{memory, request};

/// How to compute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute {
    /// Of weights and activations.
    pub dtype: DType,
    /// Where.
    pub device: Device,
    /// With how many threads.
    pub threads: usize,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Images and latents.
    pub output: Output,
    /// What decides the pixels of image 0; the others differ in `image`.
    pub record: RunRecord,
    compute: Compute,
}

/// Runs `request` on `model`.
///
/// # Errors
/// [`Failure::Model`] for whatever the library refuses.
pub(crate) fn draw(
    model: &Model,
    request: &Request,
    compute: Compute,
    watch: &mut Watch,
) -> Result<Drawn, Failure> {
    let options = LoadOptions {
        dtype: compute.dtype,
        device: compute.device,
        threads: Some(compute.threads),
        variant: model.record.variant.clone(),
        ..LoadOptions::default()
    };
    // What the configurations refuse is refused before any weight is read.
    Pipeline::check(&model.source, &options, request)?;
    tracing::info!(model = model.record.name, dtype = %compute.dtype, device = %compute.device, threads = compute.threads, "load");
    let pipeline = Pipeline::load(&model.source, &options, watch)?;
    let images = request.image_count();
    tracing::info!(images, seeds = ?request.seeds, "generate");
    let output = pipeline.generate(request, watch)?;
    let record = RunRecord {
        format: FORMAT,
        version: concat!("xdit-rs ", env!("CARGO_PKG_VERSION")).into(),
        model: model.record.clone(),
        request: request::to_record(request, pipeline.defaults(), &output),
        dtype: compute.dtype.to_string(),
        device: "cpu".into(),
        tier: compute.device.tier().to_string(),
        image: 0,
        images,
    };
    Ok(Drawn {
        output,
        record,
        compute,
    })
}

impl Drawn {
    /// The record of image `image`.
    pub(crate) fn record_of(&self, image: usize) -> RunRecord {
        RunRecord {
            image,
            ..self.record.clone()
        }
    }

    /// What every report says: what ran, how long, in how much memory.
    pub(crate) fn report(&self, session: &Session, watch: &Watch) -> Value {
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
            "seconds": seconds,
            "step_seconds": watch.step_seconds,
            "peak_memory_bytes": memory::peak_bytes(),
            "warnings": watch.warnings,
        })
    }

    /// The same in half a line: `256×256, 20 steps, f32: load 0.05 s, …; peak memory 180 MiB`.
    pub(crate) fn summary(&self, session: &Session, watch: &Watch) -> String {
        let request = &self.record.request;
        let mut line = format!(
            "{}×{}, {} steps, {}: ",
            request.width, request.height, request.num_inference_steps, self.record.dtype
        );
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
