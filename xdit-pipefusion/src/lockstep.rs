//! What a stage has to do next where receives cannot be posted ahead: all stages go in step.

use crate::drift_monitor::DriftMonitor;
use crate::links::{Links, Task, TurnInput};
use crate::timetable::{Slot, Timetable};
use crate::{Error, Schedule, Stage, Turn};
use std::collections::{HashMap, VecDeque};
use xdit_comm::{Call, Pending, Spec};
use xdit_kernels::Tensor;

/// The slots of a [`Timetable`] as one stage sees them. At the end of each slot the stage starts one batch: what it has made in the slot
/// goes out, and what others have made for it comes in. So no receive holds up a send that it depends on, and slots of all ranks come
/// in one order.
pub(crate) struct Lockstep {
    timetable: Timetable,
    steps: usize,
    /// The slot that is under way.
    slot: Slot,
    /// Batches under way, with where each of their tensors belongs.
    arriving: VecDeque<(Pending, Vec<Destination>)>,
    arrived: HashMap<(Turn, usize), TurnInput>,
    /// By patch and step.
    latents: HashMap<(usize, usize), Tensor>,
}

/// Where a tensor belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// The input of a turn on a leg: hidden states, or what blocks of an earlier leg hand on.
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
            timetable: Timetable::new(schedule, links.placement(), links.stages()),
            steps: schedule.steps,
            slot: Slot::new(),
            arriving: VecDeque::new(),
            arrived: HashMap::new(),
            latents: HashMap::new(),
        }
    }

    /// What comes next, and its input when that has come; `None` when there is no more. Slots in which this stage has nothing to do pass
    /// by.
    pub(crate) fn take<S: Stage>(
        &mut self,
        monitor: &mut DriftMonitor<'_>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
    ) -> Result<Option<Task>, Error> {
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
        }
    }

    /// The end of a slot: starts to send what this stage has made in it, and to receive what others have.
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

    /// The input of a turn on a leg of this stage; all of it was made in earlier slots.
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
        if leg == 0 && turn.step > 0 && links.end() != links.stage() {
            let stepped = patches.filter_map(|patch| self.latents.remove(&(patch, turn.step)));
            input.stream.extend(stepped);
        }
        Ok(input)
    }

    /// Whether no turn of this step is left.
    pub(crate) fn is_step_over(&self, stage: usize, step: usize) -> bool {
        self.timetable.is_step_over(stage, step)
    }
}
