//! What a call is going to do on which rank, told before anything is loaded.

use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use xdit_pipefusion::{Blocks, PatchPlan, Placement, Schedule, StepTraffic};

use crate::pipeline::estimate::MemoryEstimate;

/// A call's plan: who computes what, and what it takes.
///
/// Bytes of parameters are those of the transformer; text encoders and autoencoder come on top.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RunPlan {
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
}

impl RunPlan {
    /// The traffic of the first step that runs whole (the first of all), and of the first that runs patch by patch, if any
    /// does.
    pub fn step_traffic(&self) -> (Option<StepTraffic>, Option<StepTraffic>) {
        let whole = |step: &usize| self.schedule.is_whole(*step);
        let patched = (0..self.traffic.len()).find(|step| !whole(step));
        let first = self.traffic.first().copied();
        (first, patched.map(|step| self.traffic[step]))
    }
}

/// One stage of the pipeline.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StageSummary {
    /// Its blocks, counted through.
    pub blocks: Blocks,
    /// How many there are of each kind.
    pub kinds: Vec<(&'static str, usize)>,
    /// Its part of a step's FLOPs, from 0 to 1.
    pub flops_share: f64,
    /// Bytes of its parameters in the compute dtype.
    pub parameter_bytes: u64,
}

/// One rank.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RankPlan {
    /// Its number.
    pub rank: usize,
    /// Its place on each axis, in the order of [`axes::ALL`].
    pub coordinates: [usize; axes::ALL.len()],
    /// Bytes of its stage's parameters in the compute dtype.
    pub parameter_bytes: u64,
    /// Bytes of the keys and values that it keeps: for other patches 2 · blocks · tokens · heads · head dim · bytes of the
    /// dtype · images · branches, tokens and heads being its part, where any step runs patch by patch; and those of the text.
    pub kv_bytes: u64,
    /// Those of the text among them, which blocks read by cross-attention (HunyuanDiT): made once an image, and by every rank
    /// for all heads.
    pub text_kv_bytes: u64,
}

/// What one rank held of what [`RankPlan`] foretells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RankMemory {
    /// Bytes of the transformer's parameters that it computed with.
    pub parameter_bytes: u64,
    /// Bytes of keys and values that it kept.
    pub kv_bytes: u64,
    /// Those of the text among them.
    pub text_kv_bytes: u64,
}

impl RankMemory {
    pub(crate) fn new(parameter_bytes: usize, kept_bytes: usize, text_kv_bytes: usize) -> Self {
        Self {
            parameter_bytes: parameter_bytes as u64,
            kv_bytes: (kept_bytes + text_kv_bytes) as u64,
            text_kv_bytes: text_kv_bytes as u64,
        }
    }
}
