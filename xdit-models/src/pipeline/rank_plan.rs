//! Stages and ranks of a plan, and the memory that a rank used.

use xdit_kernels::Device;
use xdit_pipefusion::Blocks;

use crate::ranks::axes;

/// One stage of the pipeline.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StageSummary {
    /// Its blocks, numbered over the whole model.
    pub blocks: Blocks,
    /// The number of blocks of each kind.
    pub kinds: Vec<(&'static str, usize)>,
    /// Its share of a step's FLOPs, from 0 to 1.
    pub flops_share: f64,
    /// Bytes of its parameters in the compute dtype.
    pub parameter_bytes: u64,
}

/// One rank.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RankPlan {
    /// The number of the rank.
    pub rank: usize,
    /// Its coordinates on all axes, in the order of [`axes::ALL`].
    pub coordinates: [usize; axes::ALL.len()],
    /// Its device, where ranks are spread over several.
    pub device: Option<Device>,
    /// Bytes of the parameters of its stage in the compute dtype.
    pub parameter_bytes: u64,
    /// Bytes of the keys and values that it keeps. If any step runs patch by patch, for other patches: 2 · blocks · tokens ·
    /// heads · head dim · bytes of the dtype · images · branches, with the rank's share of tokens and heads. Also those of the
    /// text.
    pub kv_bytes: u64,
    /// The part of `kv_bytes` for the text, which blocks read by cross-attention (HunyuanDiT). Every rank computes them once
    /// per image, for all heads.
    pub text_kv_bytes: u64,
}

/// The measured memory of one rank, for comparison with [`RankPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RankMemory {
    /// Bytes of the transformer's parameters that the rank computed with.
    pub parameter_bytes: u64,
    /// Bytes of the keys and values that it kept.
    pub kv_bytes: u64,
    /// The part for the text.
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
