//! Prints a schedule as text.

use crate::turn_order::TurnOrder;
use crate::{Part, Placement, Schedule, Turn};
use std::collections::VecDeque;
use std::fmt::Write;

impl Schedule {
    /// Returns the first `steps` steps over `stages` as a text grid, with one row per stage. Time goes to the right. A column
    /// is the time of one patch on one stage (half of that in a folded pipeline); links take no time. `2.1` is patch 1 in step
    /// 2, `2'1` is the same patch on its way up a folded pipeline, `0.*` is a whole step, and `·` is waiting.
    pub fn draw(&self, placement: Placement, stages: usize, steps: usize) -> String {
        let rows = match stages {
            0 => Vec::new(),
            _ => self.rows(placement, stages, steps.min(self.steps)),
        };
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

    /// Returns the work of each stage in each unit of time.
    fn rows(&self, placement: Placement, stages: usize, steps: usize) -> Vec<Vec<String>> {
        let turns: Vec<Turn> = (0..steps)
            .flat_map(|step| {
                let parts = self.parts(step).into_iter();
                parts.map(move |part| Turn { step, part })
            })
            .collect();
        let legs = placement.legs(stages);
        // The time when each leg finishes each turn.
        let mut done: Vec<Vec<usize>> = vec![Vec::new(); legs];
        let mut rows: Vec<Vec<String>> = vec![Vec::new(); stages];
        let mut orders: Vec<TurnOrder> = (0..stages)
            .map(|stage| TurnOrder::new(placement, stage, stages, self.patches))
            .collect();
        let mut todo: Vec<VecDeque<Turn>> = vec![turns.iter().copied().collect(); stages];
        // The time when the sampler finishes each patch of the previous step, and the number of that step.
        let mut sampled = vec![(0, 0); self.patches];
        let mut moved = true;
        while moved {
            moved = false;
            for stage in 0..stages {
                let Some((second, turn)) = orders[stage].next(todo[stage].front().copied()) else {
                    continue;
                };
                let leg = placement.legs_of(stage, stages)[usize::from(second)];
                let patches = turn.part.patches(self.patches);
                let ready = match leg.checked_sub(1) {
                    Some(before) => done[before].get(done[leg].len()).copied(),
                    None if patches.clone().all(|patch| sampled[patch].1 == turn.step) => {
                        patches.clone().map(|patch| sampled[patch].0).max()
                    }
                    None => None,
                };
                let Some(ready) = ready else { continue };
                moved = true;
                orders[stage].take(second, turn);
                if !second {
                    todo[stage].pop_front();
                }
                // The last stage of a folded pipeline runs both halves of its turn together.
                let halves = 1 + usize::from(placement == Placement::Folded && 2 * leg + 1 == legs);
                let label = match (turn.part, second) {
                    (Part::Whole, false) => format!("{}.*", turn.step),
                    (Part::Whole, true) => format!("{}'*", turn.step),
                    (Part::Patch(patch), false) => format!("{}.{patch}", turn.step),
                    (Part::Patch(patch), true) => format!("{}'{patch}", turn.step),
                };
                let row = &mut rows[stage];
                let start = ready.max(row.len());
                row.resize(start, "·".into());
                row.resize(start + patches.len() * halves, label);
                done[leg].push(row.len());
                if leg + 1 == legs {
                    for patch in patches {
                        sampled[patch] = (row.len(), turn.step + 1);
                    }
                }
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grid_shows_the_pipeline_filling() {
        let grid = Schedule {
            steps: 3,
            warmup_steps: 1,
            patches: 2,
        }
        .draw(Placement::Linear, 2, 3);
        let expected = "\
stage 0 | 0.* 0.* ·   ·   1.0 1.1 2.0 2.1 ·
stage 1 | ·   ·   0.* 0.* ·   1.0 1.1 2.0 2.1
";
        assert_eq!(grid, expected);
    }

    #[test]
    fn the_readme_shows_what_is_drawn() {
        let readme = include_str!("../README.md");
        for (placement, stages, warmup_steps, patches) in
            [(Placement::Linear, 3, 1, 4), (Placement::Folded, 2, 0, 3)]
        {
            let schedule = Schedule {
                steps: 3,
                warmup_steps,
                patches,
            };
            let grid = schedule.draw(placement, stages, 3);
            assert!(readme.contains(&grid), "\n{grid}");
        }
    }

    proptest! {
        #[test]
        fn every_turn_is_drawn_on_every_leg(stages in 1usize..6, patches in 1usize..7, warmup_steps in 0usize..4, folded: bool) {
            let placement = if folded { Placement::Folded } else { Placement::Linear };
            let schedule = Schedule { steps: 4, warmup_steps, patches };
            let rows = schedule.rows(placement, stages, 4);
            for row in rows {
                let busy = row.iter().filter(|cell| *cell != "·").count();
                prop_assert_eq!(busy, 4 * patches * if folded { 2 } else { 1 });
            }
        }
    }

    #[test]
    fn one_stage_never_waits_and_no_steps_are_empty_rows() {
        let schedule = Schedule {
            steps: 2,
            warmup_steps: 0,
            patches: 2,
        };
        assert_eq!(
            schedule.draw(Placement::Linear, 1, 9),
            "stage 0 | 0.* 0.* 1.0 1.1\n"
        );
        assert_eq!(
            schedule.draw(Placement::Linear, 2, 0),
            "stage 0 |\nstage 1 |\n"
        );
    }

    #[test]
    fn fewer_patches_than_stages_leave_gaps() {
        let grid = Schedule {
            steps: 3,
            warmup_steps: 0,
            patches: 2,
        }
        .draw(Placement::Linear, 3, 3);
        let first = grid.lines().next().unwrap();
        assert_eq!(
            first,
            "stage 0 | 0.* 0.* ·   ·   ·   ·   1.0 1.1 ·   2.0 2.1 ·   ·"
        );
    }
}
