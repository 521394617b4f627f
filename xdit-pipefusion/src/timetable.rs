//! The timetable of all stages, for backends without receives ahead.

use crate::turn_order::TurnOrder;
use crate::{Part, Placement, Schedule, Turn};
use std::collections::VecDeque;

/// A pipeline divided into slots. In a slot, each stage runs at most one turn, whose input was computed in earlier slots. The
/// stages exchange their results at the end of the slot.
///
/// Every rank computes the whole timetable, with the same result. So each rank knows all messages of a slot, and they can be
/// one batch.
#[derive(Debug)]
pub(crate) struct Timetable {
    schedule: Schedule,
    placement: Placement,
    stages: usize,
    /// The order of turns of each stage.
    orders: Vec<TurnOrder>,
    /// The next turns on the first leg of each stage.
    todo: Vec<VecDeque<Turn>>,
    /// The number of finished turns of each leg.
    done: Vec<usize>,
    /// The number of finished steps of each patch.
    sampled: Vec<usize>,
    /// The next step whose parts are still unknown.
    next_step: usize,
}

/// The work of each stage in a slot: the leg and the turn, if there is one.
pub(crate) type Slot = Vec<Option<(usize, Turn)>>;

impl Timetable {
    /// Creates the timetable of the steps from `first_step`.
    pub(crate) fn new(
        schedule: Schedule,
        placement: Placement,
        stages: usize,
        first_step: usize,
    ) -> Self {
        let order = |stage| TurnOrder::new(placement, stage, stages, schedule.patches);
        Self {
            schedule,
            placement,
            stages,
            orders: (0..stages).map(order).collect(),
            todo: vec![VecDeque::new(); stages],
            done: vec![0; placement.legs(stages)],
            sampled: vec![first_step; schedule.patches],
            next_step: first_step,
        }
    }

    /// Returns the next slot, and `None` after the last. `parts` returns the parts of a step. It is called once for each step,
    /// when the first patch could begin the step: then every stage has finished the step before the last.
    ///
    /// # Panics
    /// If no stage can continue although turns are left, which would be a bug in [`TurnOrder`].
    pub(crate) fn next<E>(
        &mut self,
        parts: impl FnOnce(usize) -> Result<Vec<Part>, E>,
    ) -> Result<Option<Slot>, E> {
        let step = self.next_step;
        let begins = self.todo[0].is_empty() && self.sampled.first() == Some(&step);
        if step < self.schedule.steps && begins {
            for part in parts(step)? {
                self.todo
                    .iter_mut()
                    .for_each(|todo| todo.push_back(Turn { step, part }));
            }
            self.next_step += 1;
        }
        let slot: Slot = (0..self.stages).map(|stage| self.ready(stage)).collect();
        if slot.iter().all(Option::is_none) {
            let left = (0..self.stages).any(|stage| self.order(stage).is_some());
            assert!(
                !left && self.next_step == self.schedule.steps,
                "turns are left, but no stage can take one up"
            );
            return Ok(None);
        }
        for (stage, task) in slot.iter().enumerate() {
            if let Some((leg, turn)) = *task {
                self.take(stage, leg, turn);
            }
        }
        Ok(Some(slot))
    }

    /// Returns the next turn of a stage and its leg.
    fn order(&self, stage: usize) -> Option<(usize, Turn)> {
        let (second, turn) = self.orders[stage].next(self.todo[stage].front().copied())?;
        let legs = self.placement.legs_of(stage, self.stages);
        Some((legs[usize::from(second)], turn))
    }

    /// Returns the same, if its input is available.
    fn ready(&self, stage: usize) -> Option<(usize, Turn)> {
        let (leg, turn) = self.order(stage)?;
        let ready = match leg.checked_sub(1) {
            Some(before) => self.done[before] > self.done[leg],
            None => {
                let mut patches = turn.part.patches(self.schedule.patches);
                patches.all(|patch| self.sampled[patch] == turn.step)
            }
        };
        ready.then_some((leg, turn))
    }

    fn take(&mut self, stage: usize, leg: usize, turn: Turn) {
        let second = leg != stage;
        self.orders[stage].take(second, turn);
        if !second {
            self.todo[stage].pop_front();
        }
        self.done[leg] += 1;
        if leg + 1 == self.done.len() {
            for patch in turn.part.patches(self.schedule.patches) {
                self.sampled[patch] = turn.step + 1;
            }
        }
    }

    /// Returns whether a stage has started all turns of a step.
    pub(crate) fn is_step_over(&self, stage: usize, step: usize) -> bool {
        let mut todo = self.todo[stage].iter();
        !todo.any(|turn| turn.step == step) && !self.orders[stage].has_out(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_leg_takes_up_every_turn_once_and_in_order(
            stages in 1usize..7, patches in 1usize..8, steps in 0usize..6, warmup_steps in 0usize..4,
            folded: bool, refreshed in any::<u8>(), first in 0usize..6,
        ) {
            let placement = if folded { Placement::Folded } else { Placement::Linear };
            let schedule = Schedule { steps, warmup_steps, patches };
            let mut timetable = Timetable::new(schedule, placement, stages, first.min(steps));
            let (mut turns, mut taken) = (Vec::new(), vec![Vec::new(); placement.legs(stages)]);
            // When each leg took up each turn.
            let mut slots = vec![Vec::new(); placement.legs(stages)];
            let mut now = 0;
            loop {
                let parts = |step: usize| {
                    let parts = match refreshed >> step & 1 {
                        1 => vec![Part::Whole],
                        _ => schedule.parts(step),
                    };
                    turns.extend(parts.iter().map(|part| Turn { step, part: *part }));
                    Ok::<_, ()>(parts)
                };
                let Some(slot) = timetable.next(parts).unwrap() else { break };
                for (stage, task) in slot.into_iter().enumerate() {
                    let Some((leg, turn)) = task else { continue };
                    prop_assert_eq!(placement.stage(leg, stages), stage);
                    taken[leg].push(turn);
                    slots[leg].push(now);
                }
                now += 1;
            }
            prop_assert_eq!(turns.first().map(|turn| turn.step), (first < steps).then_some(first));
            for leg in 0..taken.len() {
                prop_assert_eq!(&taken[leg], &turns);
                if leg > 0 {
                    prop_assert!(slots[leg - 1].iter().zip(&slots[leg]).all(|(a, b)| a < b));
                }
            }
        }
    }
}
