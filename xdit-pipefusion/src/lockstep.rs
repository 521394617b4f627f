//! The turns of a stage on a backend without receives ahead. All stages follow one timetable.

use crate::drift_monitor::DriftMonitor;
use crate::links::{Links, Task, TurnInput};
use crate::timetable::{Slot, Timetable};
use crate::{Error, Schedule, Stage, Turn};
use std::collections::{HashMap, VecDeque};
use xdit_comm::{Call, Pending, Spec};
use xdit_kernels::Tensor;

/// The slots of a [`Timetable`] for one stage. At the end of each slot the stage starts one batch: it sends its results of the
/// slot and receives the results for it. So no receive blocks a send that it depends on, and all ranks process slots in the
/// same order.
pub(crate) struct Lockstep {
    timetable: Timetable,
    steps: usize,
    /// The current slot.
    slot: Slot,
    /// Started batches, with the destination of each of their tensors.
    arriving: VecDeque<(Pending, Vec<Destination>)>,
    arrived: HashMap<(Turn, usize), TurnInput>,
    /// Latents by patch and step.
    latents: HashMap<(usize, usize), Tensor>,
}

/// The destination of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// The input of a turn on a leg: hidden states, or outputs of blocks of an earlier leg.
    Input {
        turn: Turn,
        leg: usize,
        from: Option<usize>,
    },
    Latents {
        patch: usize,
        step: usize,
    },
}

impl Lockstep {
    pub(crate) fn new(schedule: Schedule, links: &Links<'_>) -> Self {
        Self {
            timetable: Timetable::new(
                schedule,
                links.placement(),
                links.stages(),
                links.first_step(),
            ),
            steps: schedule.steps,
            slot: Slot::new(),
            arriving: VecDeque::new(),
            arrived: HashMap::new(),
            latents: HashMap::new(),
        }
    }

    /// Returns the next turn when its input has arrived, and `None` after the last turn. Skips slots in which this stage has no
    /// work, and calls `over` where a step ends with one of them.
    pub(crate) fn take<S: Stage>(
        &mut self,
        monitor: &mut DriftMonitor<'_>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
        over: &mut impl FnMut(usize) -> Result<(), S::Error>,
    ) -> Result<Option<Task>, S::Error> {
        loop {
            let Some(slot) = self.timetable.next(|step| monitor.parts(step))? else {
                return Ok(None);
            };
            self.slot = slot;
            if let Some((leg, turn)) = self.slot[links.stage()] {
                let input = self.input(links, turn, leg, latents.len())?;
                return Ok(Some(Task { turn, leg, input }));
            }
            self.end_slot(Vec::new(), links, stage, latents)?;
            if let Some(step) = self.ended(links) {
                over(step)?;
            }
        }
    }

    /// Returns the step that ended with this slot. The slot is the same one for every stage.
    pub(crate) fn ended(&self, links: &Links<'_>) -> Option<usize> {
        let (leg, turn) = (*self.slot.get(links.end())?)?;
        let last = leg + 1 == links.legs() && self.is_step_over(links.end(), turn.step);
        last.then_some(turn.step)
    }

    /// Ends a slot: starts to send the results of this stage and to receive the results of others.
    pub(crate) fn end_slot<S: Stage>(
        &mut self,
        mut batch: Vec<Call>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
    ) -> Result<(), Error> {
        let me = links.stage();
        let mut places = Vec::new();
        let last = links.legs() - 1;
        for (src, task) in self.slot.iter().enumerate() {
            let Some((leg, turn)) = task.filter(|_| src != me) else {
                continue;
            };
            let mut receive = |spec: Spec, place| {
                batch.push(Call::recv(spec, src));
                places.push(place);
            };
            // In the order in which the sender sends.
            if leg == last {
                let step = turn.step + 1;
                if me == 0 && step < self.steps {
                    for patch in turn.part.patches(latents.len()) {
                        receive(
                            Spec::of(&latents[patch]),
                            Destination::Latents { patch, step },
                        );
                    }
                }
                continue;
            }
            if links.of(leg + 1) == me {
                for spec in stage.carried(turn, leg + 1) {
                    let (leg, from) = (leg + 1, None);
                    receive(spec, Destination::Input { turn, leg, from });
                }
            }
            for to in (leg + 1..=last).filter(|to| links.of(*to) == me) {
                for spec in stage.skipped(turn, leg, to) {
                    let (leg, from) = (to, Some(leg));
                    receive(spec, Destination::Input { turn, leg, from });
                }
            }
        }
        if let Some(pending) = links.start(batch)? {
            self.arriving.push_back((pending, places));
        }
        Ok(())
    }

    /// Returns the input of a turn on a leg of this stage. All of it was computed in earlier slots.
    fn input(
        &mut self,
        links: &Links<'_>,
        turn: Turn,
        leg: usize,
        count: usize,
    ) -> Result<TurnInput, Error> {
        let patches = turn.part.patches(count);
        let wanted = |place: &Destination| match place {
            Destination::Input {
                turn: of, leg: on, ..
            } => (*of, *on) == (turn, leg),
            Destination::Latents { patch, step } => {
                leg == 0 && *step == turn.step && patches.contains(patch)
            }
        };
        let mut batches = self.arriving.iter();
        let newest = batches.rposition(|(_, places)| places.iter().any(wanted));
        for (pending, places) in self.arriving.drain(..newest.map_or(0, |newest| newest + 1)) {
            for (tensor, place) in pending.wait()?.into_iter().zip(places) {
                match place {
                    Destination::Input { turn, leg, from } => {
                        let input = self.arrived.entry((turn, leg)).or_default();
                        input.add(from, tensor);
                    }
                    Destination::Latents { patch, step } => {
                        self.latents.insert((patch, step), tensor);
                    }
                }
            }
        }
        let mut input = self.arrived.remove(&(turn, leg)).unwrap_or_default();
        if leg == 0 && links.receives_latents(turn.step) {
            let stepped = patches.filter_map(|patch| self.latents.remove(&(patch, turn.step)));
            input.stream.extend(stepped);
        }
        Ok(input)
    }

    /// Returns whether no turn of this step is left.
    pub(crate) fn is_step_over(&self, stage: usize, step: usize) -> bool {
        self.timetable.is_step_over(stage, step)
    }
}
