use crate::{Part, Placement, Turn};
use std::collections::VecDeque;

/// The order in which a stage runs the turns of its legs.
///
/// When the pipeline is full, a stage with two legs alternates between them: down with one part, then up with an earlier one.
/// Between the two, a share of the parts may be below the stage: with M patches and b of the N − 1 links below it, ⌈M · b / (N
/// − 1)⌉ parts. Slow links then delay no stage, as long as M patches can fill the whole way.
///
/// Every stage follows this order, whichever input arrives first, and no stage waits for ever: before stage k goes up with part
/// u, it waits for stage k + 1. That stage may need all parts up to u + ⌈M · (b − 1) / (N − 1)⌉ first, and stage k has already
/// sent these.
#[derive(Debug, Clone)]
pub(crate) struct TurnOrder {
    /// The number of parts that may be below this stage.
    below: usize,
    two: bool,
    /// Turns that have gone down and not come up.
    out: VecDeque<Turn>,
}

impl TurnOrder {
    pub(crate) fn new(placement: Placement, stage: usize, stages: usize, patches: usize) -> Self {
        let links = (stages - 1).max(1);
        Self {
            // At most the number of patches, because the stages below have no more links.
            below: (patches as u128 * (stages - 1 - stage) as u128).div_ceil(links as u128)
                as usize,
            two: placement.legs_of(stage, stages).len() > 1,
            out: VecDeque::new(),
        }
    }

    /// Returns the next turn, and whether it is on the second leg. `down` is the next turn of the first leg. `None` if there is
    /// no turn, or it is not known yet.
    pub(crate) fn next(&self, down: Option<Turn>) -> Option<(bool, Turn)> {
        let up = self.out.front().map(|turn| (true, *turn));
        match down {
            Some(turn) if !self.two || (self.out.len() < self.below && !self.waits(turn)) => {
                Some((false, turn))
            }
            _ => up,
        }
    }

    /// Records that a turn has started.
    pub(crate) fn take(&mut self, second: bool, turn: Turn) {
        match second {
            true => drop(self.out.pop_front()),
            false if self.two => self.out.push_back(turn),
            false => {}
        }
    }

    /// Returns whether a turn of this step has gone down and not come up.
    pub(crate) fn has_out(&self, step: usize) -> bool {
        self.out.iter().any(|turn| turn.step == step)
    }

    /// Returns whether a turn needs latents that have not arrived, so that it must not wait for its input.
    pub(crate) fn waits(&self, turn: Turn) -> bool {
        let overlap = |a: Part, b: Part| match (a, b) {
            (Part::Patch(a), Part::Patch(b)) => a == b,
            _ => true,
        };
        let mut out = self.out.iter();
        out.any(|up| up.step < turn.step && overlap(up.part, turn.part))
    }
}
