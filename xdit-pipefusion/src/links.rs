//! Where a stage's tensors come from and go to.

use crate::{Error, Placement, Stage, Turn};
use xdit_comm::{Call, Group, Pending, Spec};
use xdit_kernels::Tensor;

/// A stage's place among the stages.
pub(crate) struct Links<'a> {
    /// `None` where there is one stage.
    pipe: Option<&'a Group>,
    placement: Placement,
}

/// The input of a turn on a leg, which is under way.
pub(crate) struct Incoming {
    stream: Option<Pending>,
    /// From each earlier leg that hands on outputs of blocks.
    skips: Vec<(usize, Pending)>,
}

/// The input of a turn on a leg.
#[derive(Default)]
pub(crate) struct TurnInput {
    pub(crate) stream: Vec<Tensor>,
    /// From each earlier leg that hands on outputs of blocks.
    pub(crate) skips: Vec<(usize, Vec<Tensor>)>,
}

impl TurnInput {
    /// One more tensor: of the stream, or of what blocks of an earlier leg hand on.
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
    pub(crate) fn new(pipe: Option<&'a Group>, placement: Placement) -> Self {
        Self {
            pipe: pipe.filter(|pipe| pipe.world_size() > 1),
            placement,
        }
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

    /// The legs of a pass.
    pub(crate) fn legs(&self) -> usize {
        self.placement.legs(self.stages())
    }

    /// The stage with the end of the model.
    pub(crate) fn end(&self) -> usize {
        self.of(self.legs() - 1)
    }

    /// Whether receives may be posted ahead.
    pub(crate) fn receives_ahead(&self) -> bool {
        self.pipe.is_none_or(Group::receives_ahead)
    }

    /// The stage of a leg.
    pub(crate) fn of(&self, leg: usize) -> usize {
        self.placement.stage(leg, self.stages())
    }

    /// The links of a closed walk from the first leg to the first again.
    pub(crate) fn around(&self) -> usize {
        match self.placement {
            // The latents' way back is shorter than any other.
            Placement::Linear => self.stages() - 1,
            Placement::Folded => self.legs() - 1,
        }
    }

    /// Posts the receives of a turn's input on a leg of this stage. The first leg gets the latents of each patch from the last,
    /// once a step has made some, unless that is on this stage too.
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
        let end = self.end();
        match leg {
            0 if turn.step > 0 && end != self.stage() => {
                let patches = turn.part.patches(latents.len());
                let specs = patches.map(|patch| Spec::of(&latents[patch])).collect();
                incoming.stream = Some(receive(specs, end)?);
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

    /// The sends of what a leg made to the next, and of what blocks of it made to the legs that want it.
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

    /// The sends of latents to the first stage.
    pub(crate) fn back(&self, latents: &[Tensor]) -> Vec<Call> {
        self.sends(latents, 0)
    }

    fn sends(&self, tensors: &[Tensor], dst: usize) -> Vec<Call> {
        let others = tensors.iter().filter(|_| self.stage() != dst);
        others.map(|tensor| Call::send(tensor, dst)).collect()
    }

    /// Starts a batch; nothing where it is empty.
    pub(crate) fn start(&self, batch: Vec<Call>) -> Result<Option<Pending>, Error> {
        match self.pipe.filter(|_| !batch.is_empty()) {
            Some(pipe) => Ok(Some(pipe.start(batch)?)),
            None => Ok(None),
        }
    }
}
