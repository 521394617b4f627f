//! What the ranks of a call work on.

use std::sync::Arc;

use xdit_kernels::{DType, Device, Tensor};

use crate::models::dit::Dit;
use crate::noise::Generator;
use crate::pipeline::finite::Finite;
use crate::pipeline::request::OutputType;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::run_plan::RunPlan;
use crate::pipeline::store::LoadedModel;
use crate::ranks::partition::Partition;
use crate::schedulers::Scheduler;

/// A call, ready to be denoised. It owns what it needs, or shares it: a rank that never returns keeps its share.
#[derive(Debug)]
pub(crate) struct Job<D: Dit> {
    pub(crate) loaded: Arc<LoadedModel<D>>,
    /// With the call's steps.
    pub(crate) scheduler: Box<dyn Scheduler>,
    /// What is drawn, for the output.
    pub(crate) run_plan: RunPlan,
    pub(crate) plan: ResolvedRequest,
    pub(crate) partition: Partition,
    /// A prompt for each branch, for all images.
    pub(crate) text: Vec<D::Text>,
    /// The latents of all images before the first step, f32 tokens `[b, l, c]`.
    pub(crate) latents_blc: Tensor,
    /// Where further noise comes from.
    pub(crate) generators: Vec<Generator>,
    pub(crate) finite: Arc<Finite>,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    pub(crate) output: OutputType,
}
