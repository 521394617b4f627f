use crate::{Part, Placement, Turn};
use std::collections::VecDeque;

/// In which order a stage takes up the turns of its legs.
///
/// A stage with two legs takes them up in turn once the pipeline is full: down with one part, up with an earlier one. Between
/// the two there may be so many parts below it as take their share of the way round: of M patches, with b of the N − 1 links
/// below, ⌈M · b / (N − 1)⌉. Then slow links hold up nobody as long as M patches can fill the whole way.
///
/// Every stage keeps to this order, whatever comes first, and none waits for ever: before stage k goes up with part u it waits
/// for stage k + 1, which may want all parts up to u + ⌈M · (b − 1) / (N − 1)⌉ first; those stage k has sent.
#[derive(Debug, Clone)]
pub(crate) struct TurnOrder {
    /// Parts that may be below this stage.
    below: usize,
    two: bool,
    /// What has gone down and not come up.
    out: VecDeque<Turn>,
}

impl TurnOrder {
    pub(crate) fn new(placement: Placement, stage: usize, stages: usize, patches: usize) -> Self {
        let links = (stages - 1).max(1);
        Self {
            // At most the patches: stages below are no more than links.
            below: (patches as u128 * (stages - 1 - stage) as u128).div_ceil(links as u128)
                as usize,
            two: placement.legs_of(stage, stages).len() > 1,
            out: VecDeque::new(),
        }
    }

    /// What comes next, and whether it is on the second leg; `down` is the next turn of the first. `None` where there is
    /// nothing, or it is not known yet.
    pub(crate) fn next(&self, down: Option<Turn>) -> Option<(bool, Turn)> {
        let up = self.out.front().map(|turn| (true, *turn));
        match down {
            Some(turn) if !self.two || (self.out.len() < self.below && !self.waits(turn)) => {
                Some((false, turn))
            }
            _ => up,
        }
    }

    /// A turn is taken up.
    pub(crate) fn take(&mut self, second: bool, turn: Turn) {
        match second {
            true => drop(self.out.pop_front()),
            false if self.two => self.out.push_back(turn),
            false => {}
        }
    }

    /// Whether a turn of this step has gone down and not come up.
    pub(crate) fn has_out(&self, step: usize) -> bool {
        self.out.iter().any(|turn| turn.step == step)
    }

    /// Whether a turn needs latents that are still under way: then it is no use to wait for its input.
    pub(crate) fn waits(&self, turn: Turn) -> bool {
        let overlap = |a: Part, b: Part| match (a, b) {
            (Part::Patch(a), Part::Patch(b)) => a == b,
            _ => true,
        };
        let mut out = self.out.iter();
        out.any(|up| up.step < turn.step && overlap(up.part, turn.part))
    }
}
