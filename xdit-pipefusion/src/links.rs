//! The messages between stages.

use crate::{Driver, Error, Placement, Stage, Turn};
use xdit_comm::{Call, Group, Pending, Spec};
use xdit_kernels::Tensor;

/// A stage's position among the stages.
pub(crate) struct Links<'a> {
    /// `None` where there is one stage.
    pipe: Option<&'a Group>,
    placement: Placement,
    /// The first step that runs. Every stage has its latents.
    first_step: usize,
}

/// The input of a turn on a leg, which is being received.
pub(crate) struct Incoming {
    stream: Option<Pending>,
    /// Outputs of blocks from each earlier leg that passes some on.
    skips: Vec<(usize, Pending)>,
}

/// The input of a turn on a leg.
#[derive(Default)]
pub(crate) struct TurnInput {
    pub(crate) stream: Vec<Tensor>,
    /// Outputs of blocks from each earlier leg that passes some on.
    pub(crate) skips: Vec<(usize, Vec<Tensor>)>,
}

impl TurnInput {
    /// Adds one tensor: of the stream, or an output of blocks of the earlier leg `from`.
    pub(crate) fn add(&mut self, from: Option<usize>, tensor: Tensor) {
        let Some(from) = from else {
            self.stream.push(tensor);
            return;
        };
        match self.skips.iter_mut().find(|(leg, _)| *leg == from) {
            Some((_, skips)) => skips.push(tensor),
            None => self.skips.push((from, vec![tensor])),
        }
    }
}

/// A turn on a leg.
pub(crate) struct Task {
    pub(crate) turn: Turn,
    pub(crate) leg: usize,
    pub(crate) input: TurnInput,
}

impl Incoming {
    pub(crate) fn wait(self) -> Result<TurnInput, Error> {
        let stream = self.stream.map_or(Ok(Vec::new()), Pending::wait)?;
        let skips = self.skips.into_iter();
        let skips = skips.map(|(from, pending)| Ok((from, pending.wait()?)));
        Ok(TurnInput {
            stream,
            skips: skips.collect::<Result<_, Error>>()?,
        })
    }
}

impl<'a> Links<'a> {
    pub(crate) fn new(driver: &'a Driver) -> Self {
        Self {
            pipe: driver.pipe.as_ref().filter(|pipe| pipe.world_size() > 1),
            placement: driver.placement,
            first_step: driver.first_step.min(driver.schedule.steps),
        }
    }

    pub(crate) fn first_step(&self) -> usize {
        self.first_step
    }

    /// Returns whether the first leg receives the latents of this step from the last leg, on another stage.
    pub(crate) fn receives_latents(&self, step: usize) -> bool {
        step > self.first_step && self.end() != self.stage()
    }

    pub(crate) fn stages(&self) -> usize {
        self.pipe.map_or(1, Group::world_size)
    }

    pub(crate) fn stage(&self) -> usize {
        self.pipe.map_or(0, Group::rank)
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// Returns the number of legs of a pass.
    pub(crate) fn legs(&self) -> usize {
        self.placement.legs(self.stages())
    }

    /// Returns the stage with the end of the model.
    pub(crate) fn end(&self) -> usize {
        self.of(self.legs() - 1)
    }

    /// Returns whether receives may be posted ahead.
    pub(crate) fn receives_ahead(&self) -> bool {
        self.pipe.is_none_or(Group::receives_ahead)
    }

    /// Returns the stage of a leg.
    pub(crate) fn of(&self, leg: usize) -> usize {
        self.placement.stage(leg, self.stages())
    }

    /// Returns the number of links of a closed walk from the first leg back to it.
    pub(crate) fn around(&self) -> usize {
        match self.placement {
            // The way of the latents back to the first stage is shorter.
            Placement::Linear => self.stages() - 1,
            Placement::Folded => self.legs() - 1,
        }
    }

    /// Posts the receives of a turn's input on a leg of this stage. After the first step that runs, the first leg receives the latents of
    /// each patch from the last leg, unless that is on this stage too.
    pub(crate) fn post<S: Stage>(
        &self,
        stage: &S,
        turn: Turn,
        leg: usize,
        latents: &[Tensor],
    ) -> Result<Incoming, Error> {
        let mut incoming = Incoming {
            stream: None,
            skips: Vec::new(),
        };
        let Some(pipe) = self.pipe else {
            return Ok(incoming);
        };
        let receive = |specs: Vec<Spec>, src: usize| {
            let batch = specs.into_iter().map(|spec| Call::recv(spec, src));
            pipe.start(batch.collect())
        };
        match leg {
            0 if self.receives_latents(turn.step) => {
                let patches = turn.part.patches(latents.len());
                let specs = patches.map(|patch| Spec::of(&latents[patch])).collect();
                incoming.stream = Some(receive(specs, self.end())?);
            }
            0 => {}
            _ => incoming.stream = Some(receive(stage.carried(turn, leg), self.of(leg - 1))?),
        }
        for from in (0..leg).filter(|from| self.of(*from) != self.stage()) {
            let specs = stage.skipped(turn, from, leg);
            if !specs.is_empty() {
                incoming.skips.push((from, receive(specs, self.of(from))?));
            }
        }
        Ok(incoming)
    }

    /// Returns the sends of a leg's output to the next leg, and of its blocks' outputs to the legs that need them.
    pub(crate) fn onward<S: Stage>(
        &self,
        stage: &mut S,
        turn: Turn,
        leg: usize,
        stream: &[Tensor],
    ) -> Result<Vec<Call>, S::Error> {
        let mut sends = self.sends(stream, self.of(leg + 1));
        for to in (leg + 1..self.legs()).filter(|to| self.of(*to) != self.stage()) {
            if !stage.skipped(turn, leg, to).is_empty() {
                let skips = stage.give(turn, leg, to)?;
                sends.extend(self.sends(&skips, self.of(to)));
            }
        }
        Ok(sends)
    }

    /// Returns the sends of latents to the first stage.
    pub(crate) fn back(&self, latents: &[Tensor]) -> Vec<Call> {
        self.sends(latents, 0)
    }

    fn sends(&self, tensors: &[Tensor], dst: usize) -> Vec<Call> {
        let others = tensors.iter().filter(|_| self.stage() != dst);
        others.map(|tensor| Call::send(tensor, dst)).collect()
    }

    /// Starts a batch. Does nothing if it is empty.
    pub(crate) fn start(&self, batch: Vec<Call>) -> Result<Option<Pending>, Error> {
        match self.pipe.filter(|_| !batch.is_empty()) {
            Some(pipe) => Ok(Some(pipe.start(batch)?)),
            None => Ok(None),
        }
    }
}
