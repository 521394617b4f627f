//! The turns of a stage whose receives are posted ahead.

use crate::drift_monitor::DriftMonitor;
use crate::links::{Incoming, Links, Task};
use crate::turn_order::TurnOrder;
use crate::{Error, Schedule, Stage, Turn};
use std::collections::VecDeque;
use xdit_kernels::Tensor;

/// The next turns on each leg, and the receives of their input.
///
/// How far ahead receives are posted: let a message take the time x, and let it be posted d turns ahead. Then its receiver can
/// take one message every x / d at best, and the M patches of a step take M·x / d. A step takes at least the time of one patch
/// through all stages, over N − 1 links of x and back (2N − 2 in a folded pipeline). So d = ⌈M / links⌉ patches delay no stage,
/// for links of any speed.
pub(crate) struct Inbox {
    schedule: Schedule,
    /// The number of patches whose input is posted ahead, on each leg.
    depth: usize,
    next_step: usize,
    order: TurnOrder,
    lanes: Vec<LegInbox>,
}

struct LegInbox {
    leg: usize,
    turns: VecDeque<Turn>,
    /// The receives of the first turns.
    posted: VecDeque<Incoming>,
}

impl Inbox {
    pub(crate) fn new(schedule: Schedule, links: &Links<'_>) -> Self {
        let (placement, stage, stages) = (links.placement(), links.stage(), links.stages());
        let lane = |leg| LegInbox {
            leg,
            turns: VecDeque::new(),
            posted: VecDeque::new(),
        };
        Self {
            schedule,
            depth: schedule.patches.div_ceil(links.around().max(1)),
            next_step: links.first_step(),
            order: TurnOrder::new(placement, stage, stages, schedule.patches),
            lanes: placement
                .legs_of(stage, stages)
                .into_iter()
                .map(lane)
                .collect(),
        }
    }

    /// Posts the input of the next turn of each leg, and of later turns that are known, up to `depth`.
    pub(crate) fn post<S: Stage>(
        &mut self,
        watch: &mut DriftMonitor<'_>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
    ) -> Result<(), Error> {
        let count = self.schedule.patches;
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let posted = lane.turns.iter().take(lane.posted.len());
            let mut ahead: usize = posted.map(|turn| turn.part.patches(count).len()).sum();
            loop {
                let lane = &self.lanes[at];
                if lane.posted.len() == lane.turns.len() && !(at == 0 && self.learn(watch)?) {
                    break;
                }
                let lane = &mut self.lanes[at];
                let turn = lane.turns[lane.posted.len()];
                ahead += turn.part.patches(count).len();
                if !lane.posted.is_empty() && ahead > self.depth {
                    break;
                }
                let incoming = links.post(stage, turn, lane.leg, latents)?;
                lane.posted.push_back(incoming);
            }
        }
        Ok(())
    }

    /// Adds the turns of the next step, if they are known now.
    fn learn(&mut self, watch: &mut DriftMonitor<'_>) -> Result<bool, Error> {
        let step = self.next_step;
        if step == self.schedule.steps {
            return Ok(false);
        }
        // The parts of a step are asked for only when no other turn can start: then every stage has finished the step before
        // the last, or will finish it without this stage.
        let first = Turn {
            step,
            part: crate::Part::Patch(0),
        };
        if watch.decides() && (!self.lanes[0].turns.is_empty() || self.order.waits(first)) {
            return Ok(false);
        }
        let parts = watch.parts(step)?;
        for lane in &mut self.lanes {
            let turns = parts.iter().map(|part| Turn { step, part: *part });
            lane.turns.extend(turns);
        }
        self.next_step += 1;
        Ok(true)
    }

    /// Returns the next turn when its input has arrived. `None` after the last turn.
    pub(crate) fn take(&mut self) -> Result<Option<Task>, Error> {
        let down = self.lanes[0].turns.front().copied();
        let Some((second, turn)) = self.order.next(down) else {
            return Ok(None);
        };
        let lane = &mut self.lanes[usize::from(second)];
        let (Some(_), Some(incoming)) = (lane.turns.pop_front(), lane.posted.pop_front()) else {
            return Ok(None);
        };
        self.order.take(second, turn);
        Ok(Some(Task {
            turn,
            leg: lane.leg,
            input: incoming.wait()?,
        }))
    }

    /// Returns whether no turn of this step is left.
    pub(crate) fn is_step_over(&self, step: usize) -> bool {
        let mut left = self.lanes.iter().flat_map(|lane| &lane.turns);
        !left.any(|turn| turn.step == step)
    }
}
