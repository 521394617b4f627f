use std::fmt;
use std::ops::Range;

/// The part of the image that passes through the stages together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text and all patches. No keys or values are stale.
    Whole,
    /// One patch. Text is computed with patch 0.
    Patch(usize),
}

impl Part {
    /// Returns whether the text stream is computed with this part.
    pub fn has_text(self) -> bool {
        matches!(self, Self::Whole | Self::Patch(0))
    }

    /// Returns the patches of this part, of `count`.
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
    /// The part that is computed.
    pub part: Part,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step;
        match self.part {
            Part::Whole => write!(f, "step {step} (all patches)"),
            Part::Patch(patch) => write!(f, "step {step} (patch {patch})"),
        }
    }
}

/// The steps that run whole, and the turns of each step.
///
/// The first step always runs whole, because there are no older keys and values.
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
    /// Returns whether a step always runs whole.
    pub fn is_whole(&self, step: usize) -> bool {
        step < self.warmup_steps.max(1) || self.patches <= 1
    }

    /// Returns whether any step uses keys and values of the previous step.
    pub fn is_lossy(&self) -> bool {
        self.steps > 0 && !self.is_whole(self.steps - 1)
    }

    /// Returns the parts of a step, in order.
    pub fn parts(&self, step: usize) -> Vec<Part> {
        match self.is_whole(step) {
            true => vec![Part::Whole],
            false => self.patched(),
        }
    }

    /// Returns each patch as a part.
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
