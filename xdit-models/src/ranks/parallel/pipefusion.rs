//! How stages and patches work.

use xdit_pipefusion::Placement;

/// How the blocks of a model are spread over the stages of a pipeline, and the image over patches (PipeFusion, Fang et al.,
/// arXiv:2405.14430). After the warm-up each patch attends to keys and values of the step before where those of this step
/// are not there yet: the image differs a little from that of one rank.
///
/// # Examples
/// ```
/// use xdit_models::Degrees;
/// use xdit_models::{Parallel, PipeFusion};
/// let pipefusion = PipeFusion::default().patches(4).warmup_steps(2).max_drift(0.2);
/// let degrees = Degrees { pipe: 2, ulysses: 2, ..Degrees::default() };
/// assert!(Parallel::threads(degrees).pipefusion(pipefusion).check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PipeFusion {
    /// Patches of the image; as many as stages when `None`. With one, and with one stage, nothing is lossy.
    pub patches: Option<usize>,
    /// Steps at the start that run whole. The first always does.
    pub warmup_steps: usize,
    /// Which blocks each stage has.
    pub stages: StageSplit,
    /// How a pass goes through the stages; `None` folds the pipeline of a model whose later blocks read outputs of earlier
    /// ones again.
    pub placement: Option<Placement>,
    /// Runs a step whole when keys and values had changed by more than this (relative L2) in the step before the last.
    pub max_drift: Option<f32>,
}

/// How blocks are shared out over stages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageSplit {
    /// So that each has about as many FLOPs in a step.
    Flops,
    /// So that each has about as many bytes of parameters.
    Memory,
    /// So many blocks each.
    Blocks(Vec<usize>),
}

impl Default for PipeFusion {
    /// As many patches as stages, one whole step, stages of equal FLOPs.
    fn default() -> Self {
        Self {
            patches: None,
            warmup_steps: 1,
            stages: StageSplit::Flops,
            placement: None,
            max_drift: None,
        }
    }
}

impl PipeFusion {
    /// Sets the number of patches.
    #[must_use]
    pub fn patches(mut self, patches: usize) -> Self {
        self.patches = Some(patches);
        self
    }

    /// Sets the steps that run whole.
    #[must_use]
    pub fn warmup_steps(mut self, steps: usize) -> Self {
        self.warmup_steps = steps;
        self
    }

    /// Sets the blocks of each stage.
    #[must_use]
    pub fn stages(mut self, stages: StageSplit) -> Self {
        self.stages = stages;
        self
    }

    /// Sets how a pass goes through the stages.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Sets the drift above which a step runs whole.
    #[must_use]
    pub fn max_drift(mut self, drift: f32) -> Self {
        self.max_drift = Some(drift);
        self
    }
}
