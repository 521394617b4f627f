//! One stage and one rank of a plan, and what a rank held of it.

use xdit_pipefusion::Blocks;

use crate::ranks::axes;

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
