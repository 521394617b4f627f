//! The options of stages and patches.

use xdit_pipefusion::Placement;

/// How PipeFusion divides the blocks of a model into stages and the image into patches (Fang et al., arXiv:2405.14430). After
/// the warm-up, each patch attends to keys and values of the previous step where those of this step are not available yet. The
/// image then differs slightly from that of one rank.
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
    /// The number of patches. `None` for the number of stages. With one patch the result is exact.
    pub patches: Option<usize>,
    /// The number of steps at the start that run whole. The first step always does.
    pub warmup_steps: usize,
    /// The blocks of each stage.
    pub stages: StageSplit,
    /// How a pass goes through the stages. `None` folds the pipeline of a model whose later blocks read outputs of earlier
    /// ones.
    pub placement: Option<Placement>,
    /// Runs a step whole if keys and values changed by more than this (relative L2) two steps earlier.
    pub max_drift: Option<f32>,
}

/// How the blocks are divided into stages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageSplit {
    /// Each stage has about the same number of FLOPs in a step.
    Flops,
    /// Each stage has about the same bytes of parameters.
    Memory,
    /// The number of blocks of each stage.
    Blocks(Vec<usize>),
}

impl Default for PipeFusion {
    /// As many patches as stages, one whole step, and stages of equal FLOPs.
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

    /// Sets the number of steps that run whole.
    #[must_use]
    pub fn warmup_steps(mut self, steps: usize) -> Self {
        self.warmup_steps = steps;
        self
    }

    /// Sets how the blocks are divided into stages.
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
