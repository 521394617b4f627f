use std::ops::Range;

/// What goes through the stages at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text and every patch: nothing is stale.
    Whole,
    /// One patch; text goes with patch 0.
    Patch(usize),
}

impl Part {
    /// Whether the text stream is computed with it.
    pub fn has_text(self) -> bool {
        matches!(self, Self::Whole | Self::Patch(0))
    }

    /// Its patches, of `count`.
    pub fn patches(self, count: usize) -> Range<usize> {
        match self {
            Self::Whole => 0..count,
            Self::Patch(patch) => patch..patch + 1,
        }
    }
}

/// A part in one denoising step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn {
    /// The step, from 0.
    pub step: usize,
    /// What is computed.
    pub part: Part,
}

/// Which steps run whole, and the turns of each.
///
/// The first step always runs whole, since nothing older is there to be used.
///
/// # Examples
/// ```
/// use xdit_pipefusion::{Part, Placement, Schedule};
/// let schedule = Schedule { steps: 3, warmup_steps: 1, patches: 2 };
/// assert_eq!(schedule.parts(0), [Part::Whole]);
/// assert_eq!(schedule.parts(1), [Part::Patch(0), Part::Patch(1)]);
/// println!("{}", schedule.draw(Placement::Linear, 2, 3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Denoising steps.
    pub steps: usize,
    /// Steps at the start that run whole.
    pub warmup_steps: usize,
    /// Patches of the image.
    pub patches: usize,
}

impl Schedule {
    /// Whether a step runs whole whatever was measured.
    pub fn is_whole(&self, step: usize) -> bool {
        step < self.warmup_steps.max(1) || self.patches <= 1
    }

    /// Whether any step uses keys and values of the step before.
    pub fn is_lossy(&self) -> bool {
        self.steps > 0 && !self.is_whole(self.steps - 1)
    }

    /// The parts of a step, in order.
    pub fn parts(&self, step: usize) -> Vec<Part> {
        match self.is_whole(step) {
            true => vec![Part::Whole],
            false => self.patched(),
        }
    }

    /// Every patch by itself.
    pub(crate) fn patched(&self) -> Vec<Part> {
        (0..self.patches).map(Part::Patch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_whole_even_without_warm_up() {
        let schedule = Schedule {
            steps: 2,
            warmup_steps: 0,
            patches: 3,
        };
        assert!(schedule.is_whole(0) && !schedule.is_whole(1) && schedule.is_lossy());
        assert!(
            !Schedule {
                steps: 1,
                ..schedule
            }
            .is_lossy()
        );
        assert!(
            !Schedule {
                patches: 1,
                ..schedule
            }
            .is_lossy()
        );
        assert!(
            !Schedule {
                warmup_steps: 5,
                ..schedule
            }
            .is_lossy()
        );
    }
}
