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
pub(crate) struct Input {
    pub(crate) stream: Vec<Tensor>,
    pub(crate) skips: Vec<(usize, Vec<Tensor>)>,
}

impl Incoming {
    pub(crate) fn wait(self) -> Result<Input, Error> {
        let stream = self.stream.map_or(Ok(Vec::new()), Pending::wait)?;
        let skips = self.skips.into_iter();
        let skips = skips.map(|(from, pending)| Ok((from, pending.wait()?)));
        Ok(Input {
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

    fn of(&self, leg: usize) -> usize {
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
        let end = self.of(self.legs() - 1);
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

    /// Starts to send what a leg made to the next, and what blocks of it made to the legs that want it.
    pub(crate) fn send_on<S: Stage>(
        &self,
        stage: &mut S,
        turn: Turn,
        leg: usize,
        stream: &[Tensor],
    ) -> Result<(), S::Error> {
        self.send(stream, self.of(leg + 1))?;
        for to in (leg + 1..self.legs()).filter(|to| self.of(*to) != self.stage()) {
            if !stage.skipped(turn, leg, to).is_empty() {
                let skips = stage.give(turn, leg, to)?;
                self.send(&skips, self.of(to))?;
            }
        }
        Ok(())
    }

    /// Starts to send latents to the first stage.
    pub(crate) fn send_back(&self, latents: &[Tensor]) -> Result<(), Error> {
        self.send(latents, 0)
    }

    fn send(&self, tensors: &[Tensor], dst: usize) -> Result<(), Error> {
        if let Some(pipe) = self.pipe.filter(|pipe| pipe.rank() != dst) {
            let batch = tensors.iter().map(|tensor| Call::send(tensor, dst));
            // The messages own their tensors; nothing here needs to know when they are gone.
            drop(pipe.start(batch.collect())?);
        }
        Ok(())
    }
}
