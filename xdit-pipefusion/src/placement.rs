use std::ops::Range;

/// How a forward pass goes through the stages.
///
/// A pass is a walk over *legs*. Each leg is on one stage. In a linear pipeline, leg i is stage i. In a folded pipeline, the
/// walk goes down all stages and up again, with one leg on the last stage. It has 2 · stages − 1 legs and ends on the first
/// stage.
///
/// # Examples
/// ```
/// use xdit_pipefusion::Placement;
/// let walk = |placement: Placement| (0..placement.legs(3)).map(move |leg| placement.stage(leg, 3));
/// assert_eq!(walk(Placement::Linear).collect::<Vec<_>>(), [0, 1, 2]);
/// assert_eq!(walk(Placement::Folded).collect::<Vec<_>>(), [0, 1, 2, 1, 0]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Every stage has consecutive blocks. The sampler on the last stage sends latents to the first stage.
    #[default]
    Linear,
    /// Every stage has blocks from both ends of the model: block i together with block L − 1 − i. In a U-shaped model, outputs
    /// of blocks are then read on the stage that computed them. The sampler on the first stage sends no latents.
    Folded,
}

impl Placement {
    /// Returns the number of legs of a pass.
    pub fn legs(self, stages: usize) -> usize {
        match self {
            Self::Linear => stages,
            Self::Folded => stages.saturating_add(stages.saturating_sub(1)),
        }
    }

    /// Returns the stage of a leg.
    ///
    /// # Panics
    /// If the leg does not exist.
    pub fn stage(self, leg: usize, stages: usize) -> usize {
        assert!(leg < self.legs(stages), "leg {leg} of {stages} stages");
        match self {
            Self::Linear => leg,
            Self::Folded => leg.min(self.legs(stages) - 1 - leg),
        }
    }

    /// Returns the legs of a stage, in order: one or two.
    pub fn legs_of(self, stage: usize, stages: usize) -> Vec<usize> {
        match (self, stages.checked_sub(stage)) {
            (_, None | Some(0)) => Vec::new(),
            // A stage of a linear pipeline, or the last stage of a folded one.
            (Self::Linear, _) | (Self::Folded, Some(1)) => vec![stage],
            (Self::Folded, _) => vec![stage, self.legs(stages) - 1 - stage],
        }
    }

    /// Returns the stage with the end of the model and the sampler.
    pub fn end(self, stages: usize) -> usize {
        match self {
            Self::Linear => stages.saturating_sub(1),
            Self::Folded => 0,
        }
    }

    /// Returns the blocks of a stage, in ranges of its legs. `cut` are the blocks of a linear pipeline, or of the first half of
    /// a folded one.
    pub(crate) fn ranges(self, cut: Range<usize>, blocks: usize) -> Vec<Range<usize>> {
        match self {
            Self::Linear => vec![cut],
            Self::Folded => vec![cut.clone(), blocks - cut.end..blocks - cut.start],
        }
    }
}
