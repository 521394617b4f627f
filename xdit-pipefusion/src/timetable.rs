//! Which stage does what when, where all stages go in step.

use crate::turn_order::TurnOrder;
use crate::{Part, Placement, Schedule, Turn};
use std::collections::VecDeque;

/// A pipeline cut into slots: in a slot each stage takes up one turn at most, whose input was made in earlier slots. What all stages make
/// in a slot is exchanged at its end.
///
/// Every rank follows the whole timetable, and all come to the same: so each knows, slot by slot, who sends what to it, and the
/// messages of a slot can be one batch.
#[derive(Debug)]
pub(crate) struct Timetable {
    schedule: Schedule,
    placement: Placement,
    stages: usize,
    /// Of each stage.
    orders: Vec<TurnOrder>,
    /// Of each stage, what is to come on its first leg.
    todo: Vec<VecDeque<Turn>>,
    /// Of each leg, how many turns it is through with.
    done: Vec<usize>,
    /// Of each patch, how many steps it is through with.
    sampled: Vec<usize>,
    /// The next step whose parts nobody has asked for.
    next_step: usize,
}

/// What each stage does in a slot: the leg and the turn, if it does something.
pub(crate) type Slot = Vec<Option<(usize, Turn)>>;

impl Timetable {
    pub(crate) fn new(schedule: Schedule, placement: Placement, stages: usize) -> Self {
        let order = |stage| TurnOrder::new(placement, stage, stages, schedule.patches);
        Self {
            schedule,
            placement,
            stages,
            orders: (0..stages).map(order).collect(),
            todo: vec![VecDeque::new(); stages],
            done: vec![0; placement.legs(stages)],
            sampled: vec![0; schedule.patches],
            next_step: 0,
        }
    }

    /// The next slot; `None` after the last. `parts` tells the parts of a step; it is asked once for each step, when the first patch
    /// could begin with it: then every stage is through with the step before the last.
    ///
    /// # Panics
    /// If no stage can go on though turns are left: a fault of [`TurnOrder`].
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

    /// What a stage takes up next, and on which leg.
    fn order(&self, stage: usize) -> Option<(usize, Turn)> {
        let (second, turn) = self.orders[stage].next(self.todo[stage].front().copied())?;
        let legs = self.placement.legs_of(stage, self.stages);
        Some((legs[usize::from(second)], turn))
    }

    /// The same, if its input is there.
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

    /// Whether a stage has taken up all turns of a step.
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
            folded: bool, refreshed in any::<u8>(),
        ) {
            let placement = if folded { Placement::Folded } else { Placement::Linear };
            let schedule = Schedule { steps, warmup_steps, patches };
            let mut timetable = Timetable::new(schedule, placement, stages);
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
            for leg in 0..taken.len() {
                prop_assert_eq!(&taken[leg], &turns);
                if leg > 0 {
                    prop_assert!(slots[leg - 1].iter().zip(&slots[leg]).all(|(a, b)| a < b));
                }
            }
        }
    }
}
