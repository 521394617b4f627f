use std::fmt::Write;
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
/// use xdit_pipefusion::{Part, Schedule};
/// let schedule = Schedule { steps: 3, warmup_steps: 1, patches: 2 };
/// assert_eq!(schedule.parts(0), [Part::Whole]);
/// assert_eq!(schedule.parts(1), [Part::Patch(0), Part::Patch(1)]);
/// println!("{}", schedule.draw(2, 3));
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
        (0..self.steps).any(|step| !self.is_whole(step))
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

    /// The first `steps` steps over `stages` as a text grid, a row a stage: time goes to the right, in units of one patch
    /// on one stage, links taking none. `2.1` is patch 1 in step 2, `0.*` a whole step, `·` waiting.
    pub fn draw(&self, stages: usize, steps: usize) -> String {
        let steps = steps.min(self.steps);
        let label = |turn: Turn| match turn.part {
            Part::Whole => format!("{}.*", turn.step),
            Part::Patch(patch) => format!("{}.{patch}", turn.step),
        };
        let mut rows: Vec<Vec<String>> = vec![Vec::new(); stages];
        // When the sampler is done with each patch of the step before.
        let mut sampled = vec![0; self.patches];
        for step in 0..steps {
            for part in self.parts(step) {
                let patches = part.patches(self.patches);
                let cost = patches.len();
                let mut ready = patches
                    .clone()
                    .map(|patch| sampled[patch])
                    .max()
                    .unwrap_or(0);
                for row in &mut rows {
                    let start = ready.max(row.len());
                    row.resize(start, "·".into());
                    row.resize(start + cost, label(Turn { step, part }));
                    ready = start + cost;
                }
                for patch in patches {
                    sampled[patch] = ready;
                }
            }
        }
        let width = rows
            .iter()
            .flatten()
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(1);
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let name = format!("stage {}", stages.saturating_sub(1)).len();
        let mut grid = String::new();
        for (stage, row) in rows.iter().enumerate() {
            let stage = format!("stage {stage}");
            let _ = write!(grid, "{stage:name$} |");
            for column in 0..columns {
                let cell = row.get(column).map_or("·", String::as_str);
                let _ = write!(grid, " {cell:width$}");
            }
            grid.truncate(grid.trim_end().len());
            grid.push('\n');
        }
        grid
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

    #[test]
    fn the_grid_shows_the_pipeline_filling() {
        let grid = Schedule {
            steps: 3,
            warmup_steps: 1,
            patches: 2,
        }
        .draw(2, 3);
        let expected = "\
stage 0 | 0.* 0.* ·   ·   1.0 1.1 2.0 2.1 ·
stage 1 | ·   ·   0.* 0.* ·   1.0 1.1 2.0 2.1
";
        assert_eq!(grid, expected);
    }

    #[test]
    fn the_readme_shows_what_is_drawn() {
        let grid = Schedule {
            steps: 3,
            warmup_steps: 1,
            patches: 4,
        }
        .draw(3, 3);
        assert!(include_str!("../README.md").contains(&grid), "\n{grid}");
    }

    #[test]
    fn one_stage_never_waits_and_no_steps_are_empty_rows() {
        let schedule = Schedule {
            steps: 2,
            warmup_steps: 0,
            patches: 2,
        };
        assert_eq!(schedule.draw(1, 9), "stage 0 | 0.* 0.* 1.0 1.1\n");
        assert_eq!(schedule.draw(2, 0), "stage 0 |\nstage 1 |\n");
    }

    #[test]
    fn fewer_patches_than_stages_leave_gaps() {
        let grid = Schedule {
            steps: 3,
            warmup_steps: 0,
            patches: 2,
        }
        .draw(3, 3);
        let first = grid.lines().next().unwrap();
        assert_eq!(
            first,
            "stage 0 | 0.* 0.* ·   ·   ·   ·   1.0 1.1 ·   2.0 2.1 ·   ·"
        );
    }
}
