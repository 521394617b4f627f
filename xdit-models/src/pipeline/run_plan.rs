//! The plan of a call: the work of each rank, before anything is loaded.

use std::sync::Arc;

use xdit_kernels::DType;
use xdit_pipefusion::{PatchPlan, Placement, Schedule, StepTraffic};

use crate::error::Result;
use crate::models::dit::DitShape;
use crate::pipeline::device_memory::GpuMemory;
use crate::pipeline::estimate::MemoryEstimate;
use crate::pipeline::memory_limit;
use crate::pipeline::rank_plan::{RankPlan, StageSummary};
use crate::pipeline::request::Request;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::ways_out;
use crate::ranks::degrees::Degrees;
use crate::ranks::parallel::Parallel;
use crate::ranks::partition::Partition;

/// The plan of a call: its images, the work of each rank, and the memory it needs.
///
/// [`Pipeline::run`](crate::Pipeline::run) executes a plan, and [`Output::plan`](crate::Output::plan) contains the executed
/// one. Bytes of parameters are those of the transformer, without text encoders and autoencoder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunPlan {
    /// The request with all defaults filled in and with the sizes of the images, without given latents. The same request
    /// produces the same images. Arguments without effect may remain; [`Self::warnings`] names them.
    pub request: Request,
    /// Warnings for the caller: changed sizes, and arguments without effect.
    pub warnings: Vec<String>,
    /// The height in pixels, rounded.
    pub height: usize,
    /// The width in pixels, rounded.
    pub width: usize,
    /// The number of images of the call.
    pub images: usize,
    /// The number of tokens of one prompt.
    pub text_tokens: usize,
    /// The number of tokens of one image.
    pub image_tokens: usize,
    /// The number of ranks on each axis.
    pub degrees: Degrees,
    /// How the image is divided into patches.
    pub patches: PatchPlan,
    /// The steps that run whole.
    pub schedule: Schedule,
    /// How a pass goes through the stages.
    pub placement: Placement,
    /// The stages, in order.
    pub stages: Vec<StageSummary>,
    /// The ranks, in order.
    pub ranks: Vec<RankPlan>,
    /// The memory of the call in this process. If a GPU computes, [`Self::device_memory`] has what lies there.
    pub memory: MemoryEstimate,
    /// The memory of the call on each GPU, first on that of the pipeline. Empty if the processor computes.
    pub device_memory: Vec<GpuMemory>,
    /// The messages between stages in each step, for all ranks of a stage of one replica together.
    pub traffic: Vec<StepTraffic>,
    /// The other inputs of `run`.
    pub(crate) call: Arc<ResolvedCall>,
}

/// A request resolved for one pipeline and its ranks.
#[derive(Debug)]
pub(crate) struct ResolvedCall {
    /// The original request.
    pub(crate) request: Request,
    pub(crate) resolved: ResolvedRequest,
    pub(crate) partition: Partition,
    pub(crate) parallel: Parallel,
    /// The dtype of weights and activations.
    pub(crate) dtype: DType,
    /// The configurations that resolved the request, as text. The plan is valid for pipelines with the same configurations.
    pub(crate) configurations: String,
}

impl RunPlan {
    /// Creates the plan of `call`, which needs `memory`. `served` is its request with all defaults.
    pub(crate) fn new(
        call: ResolvedCall,
        served: Request,
        shape: &dyn DitShape,
        (memory, device_memory): (MemoryEstimate, Vec<GpuMemory>),
    ) -> Self {
        let (resolved, partition) = (&call.resolved, &call.partition);
        let mut ranks = partition.ranks(resolved, shape);
        if let Some(first) = call.parallel.devices().first() {
            for (rank, device) in ranks.iter_mut().zip(call.parallel.device_of_each(first)) {
                rank.device = Some(device);
            }
        }
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
            ranks,
            memory,
            device_memory,
            traffic: (0..partition.schedule.steps)
                .map(|step| partition.traffic(step, resolved, shape))
                .collect(),
            call: Arc::new(call),
        }
    }

    /// Returns the plan on which `ranks` ranks, or most of them, continue this call: the one of the nearest degrees
    /// ([`Degrees::nearest`]) that `plan` does not refuse, that divides no more replicas than there are images, and that does not make
    /// an exact call inexact. `plan` plans the same request. `None` if there is none.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{Degrees, LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let request = Request::new("a red circle").height(64).width(64);
    /// let on = |degrees| {
    ///     let ranks = Parallel::threads(degrees);
    ///     Pipeline::plan(&ModelSource::demo(), &LoadOptions::default(), &request, &ranks)
    /// };
    /// let four = on(Degrees { ring: 2, ulysses: 2, ..Degrees::default() })?;
    /// assert_eq!(four.nearest(3, &on).unwrap().degrees.product(), Some(3));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    #[must_use]
    pub fn nearest(&self, ranks: usize, plan: &dyn Fn(Degrees) -> Result<Self>) -> Option<Self> {
        let exact = !self.schedule.is_lossy();
        let counts = (1..=ranks).rev();
        let mut candidates = counts.flat_map(|count| self.degrees.nearest(count));
        candidates.find_map(|degrees| {
            let plan = plan(degrees).ok()?;
            let keeps = degrees.data <= plan.images && !(exact && plan.schedule.is_lossy());
            keeps.then_some(plan)
        })
    }

    /// Returns what determines the images, as text, but for latents that the request gives: another plan of the same call has the
    /// same text.
    pub(crate) fn identity(&self) -> Result<String> {
        let request = serde_json::to_string(&self.request).map_err(xdit_comm::Error::other)?;
        Ok(format!(
            "{request} {} {}",
            self.call.dtype, self.call.configurations
        ))
    }

    /// Returns an error if the call needs more memory than `limit` bytes, in this process or on any one GPU, or than the available
    /// memory of the system and of each GPU if `limit` is `None`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceOutOfMemory`](crate::Error::DeviceOutOfMemory).
    pub fn check_memory(&self, limit: Option<u64>) -> Result<()> {
        self.check_memory_beside(&|_| 0, limit, &|device| device.available)
    }

    /// Bytes that this process may still take for the call, as far as the system says: what [`Self::check_memory`] compares
    /// [`MemoryEstimate::total`] with. The least of the machine's available memory, the control group's and, under a limit of
    /// address space, what that leaves beside the stacks of the call's threads.
    #[must_use]
    pub fn available_memory(&self) -> Option<u64> {
        memory_limit::available_memory(self.memory.threads)
    }

    /// Like [`Self::check_memory`], with weights in memory already: `spared` returns the bytes of them that the call uses or lets
    /// go, on a GPU, or in this process without one. `room` returns what a GPU has free.
    pub(crate) fn check_memory_beside(
        &self,
        spared: &dyn Fn(Option<&GpuMemory>) -> u64,
        limit: Option<u64>,
        room: &dyn Fn(&GpuMemory) -> Option<u64>,
    ) -> Result<()> {
        let mut what = format!("{} × {}", self.height, self.width);
        if self.images > 1 {
            what += &format!(", {} images,", self.images);
        }
        if self.device_memory.is_empty() {
            let spared = spared(None);
            let checked = self.memory.check(&what, spared, limit);
            return ways_out::with_ways(checked, &self.lighter(&self.memory, spared));
        }
        self.memory.check(&what, 0, limit)?;
        self.device_memory.iter().try_for_each(|device| {
            let spared = spared(Some(device));
            let checked = device.check(&what, spared, limit.or(room(device)));
            ways_out::with_ways(checked, &self.lighter(&device.parts, spared))
        })
    }

    /// Returns the estimate with the text encoders and the pipeline's other weights: that of its GPU, if one computes.
    #[must_use]
    pub fn computing_memory(&self) -> &MemoryEstimate {
        let of_gpu = self.device_memory.first();
        of_gpu.map_or(&self.memory, |device| &device.parts)
    }

    /// Returns what takes less memory on a GPU than this call does.
    pub(crate) fn ways_out(&self) -> Vec<&'static str> {
        let untiled = !self.call.request.vae_tiling && !self.call.parallel.shares_decode();
        let low_memory = self.computing_memory().low_memory;
        ways_out::on_gpu(self.call.dtype, low_memory, Some((self.images, untiled)))
    }

    /// What takes less memory where the most is taken, if `spared` bytes of the weights need not be found.
    fn lighter(&self, memory: &MemoryEstimate, spared: u64) -> Vec<&'static str> {
        let request = &self.call.request;
        let mut ways = Vec::new();
        if memory.call() >= memory.weights().saturating_sub(spared) {
            let decoder = memory.decoding >= memory.denoising.max(memory.encoding);
            if decoder && !request.vae_tiling && !self.call.parallel.shares_decode() {
                ways.push("`vae_tiling`");
            }
            if self.images > 1 {
                ways.push("fewer images");
            }
            ways.push("a smaller size");
        } else {
            ways.extend(ways_out::lighter_weights(
                self.call.dtype,
                memory.low_memory,
            ));
            if memory.optional_t5().is_some() {
                ways.push("`no_t5`");
            }
            if ways.is_empty() {
                ways.push("a smaller size");
            }
        }
        ways
    }

    /// Returns the traffic of the first whole step (the first of all) and of the first step of patches, if there is one.
    pub fn step_traffic(&self) -> (Option<StepTraffic>, Option<StepTraffic>) {
        let whole = |step: &usize| self.schedule.is_whole(*step);
        let patched = (0..self.traffic.len()).find(|step| !whole(step));
        let first = self.traffic.first().copied();
        (first, patched.map(|step| self.traffic[step]))
    }
}
