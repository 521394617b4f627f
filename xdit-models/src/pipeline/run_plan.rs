//! What a call is going to do on which rank, told before anything is loaded.

use std::sync::Arc;

use xdit_kernels::DType;
use xdit_pipefusion::{PatchPlan, Placement, Schedule, StepTraffic};

use crate::error::Result;
use crate::models::dit::DitShape;
use crate::pipeline::estimate::MemoryEstimate;
use crate::pipeline::rank_plan::{RankPlan, StageSummary};
use crate::pipeline::request::Request;
use crate::pipeline::resolve::ResolvedRequest;
use crate::ranks::degrees::Degrees;
use crate::ranks::parallel::Parallel;
use crate::ranks::partition::Partition;

/// A call's plan: what is drawn, who computes what, and what it takes.
///
/// [`Pipeline::run`](crate::Pipeline::run) draws what a plan says, and [`Output::plan`](crate::Output::plan) tells what was drawn.
/// Bytes of parameters are those of the transformer; text encoders and autoencoder come on top.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunPlan {
    /// The request as it is served: with the pipeline's defaults where it said nothing, sizes as they are drawn, and without
    /// arguments that have no effect. The same request again gives the same images.
    pub request: Request,
    /// What the caller should know: sizes that were changed, arguments without effect.
    pub warnings: Vec<String>,
    /// In pixels, snapped.
    pub height: usize,
    /// In pixels, snapped.
    pub width: usize,
    /// Images of the call.
    pub images: usize,
    /// Tokens of one prompt.
    pub text_tokens: usize,
    /// Tokens of one image.
    pub image_tokens: usize,
    /// Ranks on each axis.
    pub degrees: Degrees,
    /// How the image is cut.
    pub patches: PatchPlan,
    /// Which steps run whole.
    pub schedule: Schedule,
    /// How a pass goes through the stages.
    pub placement: Placement,
    /// The stages, in order.
    pub stages: Vec<StageSummary>,
    /// The ranks, in order.
    pub ranks: Vec<RankPlan>,
    /// What the call takes in memory in this process.
    pub memory: MemoryEstimate,
    /// What goes over the links between stages in each step, all ranks of a stage of one replica together.
    pub traffic: Vec<StepTraffic>,
    /// What `run` needs beside.
    pub(crate) call: Arc<ResolvedCall>,
}

/// A request resolved for one pipeline and its ranks.
#[derive(Debug)]
pub(crate) struct ResolvedCall {
    /// As it was given.
    pub(crate) request: Request,
    pub(crate) resolved: ResolvedRequest,
    pub(crate) partition: Partition,
    pub(crate) parallel: Parallel,
    /// Of weights and activations.
    pub(crate) dtype: DType,
    /// The configurations that it was resolved by, as text: a plan is for pipelines with the same.
    pub(crate) configurations: String,
}

impl RunPlan {
    /// The plan of `call`, which takes `memory`; `served` is its request, completed.
    pub(crate) fn new(
        call: ResolvedCall,
        served: Request,
        shape: &dyn DitShape,
        memory: MemoryEstimate,
    ) -> Self {
        let (resolved, partition) = (&call.resolved, &call.partition);
        Self {
            request: served,
            warnings: resolved.warnings.clone(),
            height: resolved.height,
            width: resolved.width,
            images: resolved.images,
            text_tokens: resolved.text_len,
            image_tokens: resolved.image_tokens(),
            degrees: call.parallel.degrees,
            patches: partition.patches,
            schedule: partition.schedule,
            placement: partition.stages.placement(),
            stages: partition.summaries(resolved, shape),
            ranks: partition.ranks(resolved, shape),
            memory,
            traffic: (0..partition.schedule.steps)
                .map(|step| partition.traffic(step, resolved, shape))
                .collect(),
            call: Arc::new(call),
        }
    }

    /// An error if what the call takes in memory does not fit into `limit` bytes, or into what the system says is available when
    /// `None`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn check_memory(&self, limit: Option<u64>) -> Result<()> {
        self.check_memory_beside(0, limit)
    }

    /// The same where some of the weights are `held` already.
    pub(crate) fn check_memory_beside(&self, held: u64, limit: Option<u64>) -> Result<()> {
        let what = self.call.resolved.told(&self.memory);
        self.memory.check(&what, held, limit)
    }

    /// The traffic of the first step that runs whole (the first of all), and of the first that runs patch by patch, if any
    /// does.
    pub fn step_traffic(&self) -> (Option<StepTraffic>, Option<StepTraffic>) {
        let whole = |step: &usize| self.schedule.is_whole(*step);
        let patched = (0..self.traffic.len()).find(|step| !whole(step));
        let first = self.traffic.first().copied();
        (first, patched.map(|step| self.traffic[step]))
    }
}
