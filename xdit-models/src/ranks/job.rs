//! The data of a call that its ranks share.

use std::sync::Arc;

use xdit_kernels::{DType, Device, Tensor};

use crate::models::dit::Dit;
use crate::noise::Generator;
use crate::pipeline::finite::Finite;
use crate::pipeline::request::OutputType;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::run_plan::RunPlan;
use crate::pipeline::store::{LoadedModel, PlacedModel};
use crate::ranks::partition::Partition;
use crate::schedulers::Scheduler;

/// A call that is ready to be denoised. It owns or shares its data, so a rank that never returns keeps its part.
#[derive(Debug)]
pub(crate) struct Job<D: Dit> {
    /// The weights on the pipeline's device.
    pub(crate) loaded: Arc<LoadedModel<D>>,
    /// The weights on other devices that have ranks.
    pub(crate) elsewhere: Vec<PlacedModel<D>>,
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
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    pub(crate) output: OutputType,
}

impl<D: Dit> Job<D> {
    /// Returns the weights that a rank on this device reads.
    pub(crate) fn model_on(&self, device: &Device) -> &LoadedModel<D> {
        let mut elsewhere = self.elsewhere.iter();
        let found = elsewhere.find(|(other, _)| other == device);
        found.map_or(&self.loaded, |(_, model)| model)
    }
}
