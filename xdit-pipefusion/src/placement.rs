use std::ops::Range;

/// How a forward pass goes through the stages.
///
/// A pass is a walk over *legs*, each on one stage. In a linear pipeline leg i is stage i. In a folded one the walk goes
/// down all stages and up again, the last stage being one leg: 2 · stages − 1 legs, and it ends where it began.
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
    /// Every stage has blocks that follow each other; the last one's sampler sends latents to the first.
    #[default]
    Linear,
    /// Every stage has blocks from both ends of the model, block i with the last but i: what a U-shaped model reads again is
    /// where it was made, and the first stage's sampler needs no message.
    Folded,
}

impl Placement {
    /// The legs of a pass.
    pub fn legs(self, stages: usize) -> usize {
        match self {
            Self::Linear => stages,
            Self::Folded => stages.saturating_add(stages.saturating_sub(1)),
        }
    }

    /// The stage of a leg.
    ///
    /// # Panics
    /// If there is no such leg.
    pub fn stage(self, leg: usize, stages: usize) -> usize {
        assert!(leg < self.legs(stages), "leg {leg} of {stages} stages");
        match self {
            Self::Linear => leg,
            Self::Folded => leg.min(self.legs(stages) - 1 - leg),
        }
    }

    /// The legs of a stage, in order: one or two.
    pub fn legs_of(self, stage: usize, stages: usize) -> Vec<usize> {
        match (self, stages.checked_sub(stage)) {
            (_, None | Some(0)) => Vec::new(),
            // A linear pipeline's, and the last stage of a folded one.
            (Self::Linear, _) | (Self::Folded, Some(1)) => vec![stage],
            (Self::Folded, _) => vec![stage, self.legs(stages) - 1 - stage],
        }
    }

    /// The stage with the end of the model, and the sampler.
    pub fn end(self, stages: usize) -> usize {
        match self {
            Self::Linear => stages.saturating_sub(1),
            Self::Folded => 0,
        }
    }

    /// The blocks of a stage of `blocks`, in ranges of its legs, where `cut` are those of a linear pipeline, or of the first
    /// half of a folded one.
    pub(crate) fn ranges(self, cut: Range<usize>, blocks: usize) -> Vec<Range<usize>> {
        match self {
            Self::Linear => vec![cut],
            Self::Folded => vec![cut.clone(), blocks - cut.end..blocks - cut.start],
        }
    }
}
