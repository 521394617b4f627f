//! The data of a call that its ranks share.

use std::sync::Arc;

use xdit_kernels::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::models::dit::Dit;
use crate::noise::Generator;
use crate::pipeline::finite::Finite;
use crate::pipeline::request::OutputType;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::run_plan::RunPlan;
use crate::pipeline::store::{LoadedModel, PlacedModel};
use crate::quote;
use crate::ranks::checkpoint::{Checkpoint, ImageBatch};
use crate::ranks::partition::Partition;
use crate::schedulers::Scheduler;

/// A call that is ready to be denoised. It owns or shares its data, so a rank that never returns keeps its part.
#[derive(Debug)]
pub(crate) struct Job<D: Dit> {
    /// The weights on the device of the pipeline, then those on other devices that have ranks.
    pub(crate) placed: Vec<PlacedModel<D>>,
    /// With the steps of the call.
    pub(crate) scheduler: Box<dyn Scheduler>,
    /// The plan, for the output.
    pub(crate) run_plan: RunPlan,
    pub(crate) plan: ResolvedRequest,
    pub(crate) partition: Partition,
    /// The prompts of each branch, for all images.
    pub(crate) text: Vec<D::Text>,
    /// The latents of all images before the first step, f32 tokens `[b, l, c]`.
    pub(crate) latents_blc: Tensor,
    /// The generators of further noise.
    pub(crate) generators: Vec<Generator>,
    pub(crate) finite: Arc<Finite>,
    /// What keeps the finished steps, if someone does.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    pub(crate) output: OutputType,
}

impl<D: Dit> Job<D> {
    /// Returns the images of the call, in batches that begin with the same step.
    pub(crate) fn batches(&self) -> Result<Vec<ImageBatch>> {
        match &self.checkpoint {
            Some(checkpoint) => checkpoint.batches(),
            None => Ok(vec![ImageBatch::all(self.plan.images)]),
        }
    }

    /// Returns the weights that a rank on this device reads.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if none were placed there.
    pub(crate) fn model_on(&self, device: &Device) -> Result<&LoadedModel<D>> {
        let mut placed = self.placed.iter();
        let found = placed.find(|(of, _)| of == device);
        let model = found.map(|(_, model)| &**model);
        model.ok_or_else(|| {
            let known: Vec<_> = self.placed.iter().map(|(of, _)| of).collect();
            Error::invalid("device", device, quote::joined(&known, ", "))
        })
    }
}
