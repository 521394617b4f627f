//! Where a stage's tensors come from and go to.

use crate::watch::Watch;
use crate::{Error, Schedule, Stage, Turn};
use std::collections::VecDeque;
use xdit_comm::{Group, Pending, Spec};
use xdit_kernels::Tensor;

/// A stage's place in the ring of stages.
pub(crate) struct Links<'a> {
    /// `None` where there is one stage.
    pipe: Option<&'a Group>,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

impl<'a> Links<'a> {
    pub(crate) fn new(pipe: Option<&'a Group>) -> Self {
        let pipe = pipe.filter(|pipe| pipe.world_size() > 1);
        Self {
            pipe,
            first: pipe.is_none_or(|pipe| pipe.rank() == 0),
            last: pipe.is_none_or(|pipe| pipe.rank() + 1 == pipe.world_size()),
        }
    }

    pub(crate) fn stages(&self) -> usize {
        self.pipe.map_or(1, Group::world_size)
    }

    /// Posts the receives of a turn's input. The first stage gets the latents of each patch from the last, once a step
    /// has made some; without other stages nothing comes.
    fn post<S: Stage>(
        &self,
        stage: &S,
        turn: Turn,
        latents: &[Tensor],
    ) -> Result<Vec<Pending>, Error> {
        let Some(pipe) = self.pipe else {
            return Ok(Vec::new());
        };
        let n = pipe.world_size();
        let src = (pipe.rank() + n - 1) % n;
        let specs: Vec<Spec> = match (self.first, turn.step) {
            (true, 0) => Vec::new(),
            (true, _) => turn
                .part
                .patches(latents.len())
                .map(|p| Spec::of(&latents[p]))
                .collect(),
            (false, _) => stage.carried(turn),
        };
        Ok(specs
            .into_iter()
            .map(|spec| pipe.start_recv(spec, src))
            .collect::<Result<_, _>>()?)
    }

    /// Starts to send to the next stage, or from the last to the first.
    pub(crate) fn send(&self, tensors: &[Tensor]) -> Result<(), Error> {
        if let Some(pipe) = self.pipe {
            let dst = (pipe.rank() + 1) % pipe.world_size();
            for tensor in tensors {
                // The message owns its tensor; nothing here needs to know when it is gone.
                drop(pipe.start_send(tensor, dst)?);
            }
        }
        Ok(())
    }
}

/// The turns to come, in order, and the receives of their input.
///
/// How far ahead receives are posted: a message that takes x to arrive and is posted d turns ahead lets its receiver take one
/// every x / d at best, so M patches, a step, take M·x / d. A step takes no less than a patch's way through all stages, over
/// N − 1 links of x and back. So d = ⌈M / (N − 1)⌉ patches hold up nobody, however slow the links are.
pub(crate) struct Inbox {
    schedule: Schedule,
    /// Patches whose input is posted ahead.
    depth: usize,
    next_step: usize,
    turns: VecDeque<Turn>,
    /// Of the first turns.
    posted: VecDeque<Vec<Pending>>,
}

impl Inbox {
    pub(crate) fn new(schedule: Schedule, stages: usize) -> Self {
        Self {
            schedule,
            depth: schedule.patches.div_ceil(stages.saturating_sub(1).max(1)),
            next_step: 0,
            turns: VecDeque::new(),
            posted: VecDeque::new(),
        }
    }

    /// Posts the input of the next turn, and of more as far as they are known and `depth` allows.
    pub(crate) fn post<S: Stage>(
        &mut self,
        watch: &mut Watch<'_>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
    ) -> Result<(), Error> {
        let count = self.schedule.patches;
        let posted = self.turns.iter().take(self.posted.len());
        let mut ahead: usize = posted.map(|turn| turn.part.patches(count).len()).sum();
        loop {
            if self.posted.len() == self.turns.len() {
                let known = !watch.decides() || self.turns.is_empty();
                if !known || self.next_step == self.schedule.steps {
                    return Ok(());
                }
                let step = self.next_step;
                let parts = watch.parts(step)?;
                self.turns
                    .extend(parts.into_iter().map(|part| Turn { step, part }));
                self.next_step += 1;
            }
            let turn = self.turns[self.posted.len()];
            ahead += turn.part.patches(count).len();
            if !self.posted.is_empty() && ahead > self.depth {
                return Ok(());
            }
            self.posted.push_back(links.post(stage, turn, latents)?);
        }
    }

    /// The next turn, and its input when that has come; `None` when there are no more.
    pub(crate) fn take(&mut self) -> Result<Option<(Turn, Vec<Tensor>)>, Error> {
        let (Some(turn), Some(posted)) = (self.turns.pop_front(), self.posted.pop_front()) else {
            return Ok(None);
        };
        let input = posted.into_iter().map(Pending::wait_one);
        Ok(Some((turn, input.collect::<Result<_, _>>()?)))
    }

    /// Whether no turn of this step is left.
    pub(crate) fn is_step_over(&self, step: usize) -> bool {
        self.turns.front().is_none_or(|next| next.step != step)
    }
}
