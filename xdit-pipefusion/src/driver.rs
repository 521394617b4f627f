//! The denoising loop.

use crate::kept::Change;
use crate::{Error, Kept, Part, Schedule, Turn};
use std::collections::VecDeque;
use xdit_comm::{Group, Pending, ReduceOp, Spec};
use xdit_kernels::Tensor;

/// One stage of a model: its first, last or middle blocks. A model with one stage is all of them.
///
/// Tensors hold the rows of one rank: [`Driver`] never looks into them.
pub trait Stage {
    /// What goes wrong in it.
    type Error: From<Error>;

    /// What the stage before hands to this one with `part`, in order. Every rank can tell it from the plan, so that no size
    /// is ever sent.
    fn carried(&self, part: Part) -> Vec<Spec>;

    /// Latents to hidden states; on the first stage.
    ///
    /// # Errors
    /// The model's.
    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>, Self::Error>;

    /// Hidden states through this stage's blocks.
    ///
    /// # Errors
    /// The model's.
    fn blocks(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Self::Error>;

    /// Hidden states to the prediction for each of the part's patches; on the last stage.
    ///
    /// # Errors
    /// The model's.
    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Self::Error>;
}

/// The update rule of a denoising step. It runs on the last stage, patch by patch: what it needs of earlier steps lies in
/// a state of each patch, so that it need not know of patches.
pub trait Sampler {
    /// What goes wrong in it.
    type Error: From<Error>;
    /// What later steps need of earlier ones.
    type State: Default;

    /// The latents of a patch after the step.
    ///
    /// # Errors
    /// The sampler's.
    fn step(
        &mut self,
        turn: Turn,
        patch: usize,
        state: &mut Self::State,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor, Self::Error>;

    /// A step is over; its latents, patch by patch. An error ends the run.
    ///
    /// # Errors
    /// The sampler's.
    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Self::Error>;
}

/// The denoising loop: every rank of an image runs it, one stage each. One stage and one patch is the plain loop.
///
/// Each turn ([`Schedule::parts`]) a stage waits for its input, posts the receive of the next turn's, computes, and starts to
/// send its output, which it never waits for: buffers are owned by the messages. The last stage steps the turn's patches and
/// sends their latents to the first.
///
/// # Collective
/// Every rank of `pipe` (and of `replica`) calls [`run`](Self::run) with the same schedule.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Which turns there are.
    pub schedule: Schedule,
    /// The stages of this rank's rows, in order; `None` for one stage.
    pub pipe: Option<Group>,
    /// All ranks that make the same image, for what they decide together; `None` for one rank.
    pub replica: Option<Group>,
    /// Runs a step whole when the newest drift that every rank knows, that of the step before the last, is above this.
    pub max_drift: Option<f32>,
    /// The handle of this rank's [`StaleKv`](crate::StaleKv)s.
    pub kept: Kept,
}

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// For each step how far the keys and values that may be used old are from those of the step before: relative L2 over
    /// sampled tokens of all layers and ranks. `None` where nothing was compared: in the first step, and with one patch.
    pub drift: Vec<Option<f32>>,
    /// Every step that ran whole.
    pub whole: Vec<usize>,
    /// Those of them that did because of [`Driver::max_drift`].
    pub refreshed: Vec<usize>,
}

/// Decides which steps run whole, and collects the drift of each.
struct Watch<'a> {
    driver: &'a Driver,
    own: Vec<Change>,
    /// Steps whose drift is on its way, when it is exchanged step by step.
    under_way: VecDeque<Pending>,
    report: Report,
}

impl Watch<'_> {
    /// The parts of the next step.
    fn parts(&mut self, step: usize) -> Result<Vec<Part>, Error> {
        let schedule = &self.driver.schedule;
        let refresh = !schedule.is_whole(step) && self.drifted(step)?;
        if refresh {
            self.report.refreshed.push(step);
        }
        if refresh || schedule.is_whole(step) {
            self.report.whole.push(step);
            return Ok(vec![Part::Whole]);
        }
        Ok(schedule.parts(step))
    }

    /// Whether the newest drift that every rank knows before `step` is above the limit.
    fn drifted(&mut self, step: usize) -> Result<bool, Error> {
        let (Some(limit), Some(before)) = (self.driver.max_drift, step.checked_sub(2)) else {
            return Ok(false);
        };
        // The step before is still in the pipeline. This rank's input of its last turn comes after all ranks have ended the
        // one before that, so waiting for their sums holds up no one.
        self.collect_until(before)?;
        Ok(self.report.drift[before].is_some_and(|drift| drift > limit))
    }

    /// This rank is through with a step.
    fn step_end(&mut self) -> Result<(), Error> {
        let change = self.driver.kept.take_change();
        self.own.push(change);
        if self.driver.max_drift.is_some() && self.driver.schedule.patches > 1 {
            match &self.driver.replica {
                None => self.report.drift.push(change.relative()),
                Some(replica) => {
                    let sums = Tensor::from_slice(&[change.moved as f32, change.norm as f32], [2])?;
                    self.under_way
                        .push_back(replica.start_all_reduce(&sums, ReduceOp::Sum)?);
                }
            }
        }
        Ok(())
    }

    fn collect_until(&mut self, step: usize) -> Result<(), Error> {
        while self.report.drift.len() <= step {
            let Some(sums) = self.under_way.pop_front() else {
                break;
            };
            self.report.drift.extend(relative(&sums.wait_one()?));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Report, Error> {
        let schedule = &self.driver.schedule;
        if schedule.patches == 1 {
            self.report.drift = vec![None; schedule.steps];
            return Ok(self.report);
        }
        if self.driver.max_drift.is_some() {
            self.collect_until(schedule.steps.saturating_sub(1))?;
            return Ok(self.report);
        }
        let sums: Vec<f32> = self
            .own
            .iter()
            .flat_map(|c| [c.moved as f32, c.norm as f32])
            .collect();
        let mut sums = Tensor::from_slice(&sums, [sums.len()])?;
        if let Some(replica) = &self.driver.replica {
            sums = replica.all_reduce(&sums, ReduceOp::Sum)?;
        }
        self.report.drift = relative(&sums);
        Ok(self.report)
    }
}

/// The drift of each step out of sums, moved and norm in turn.
fn relative(sums: &Tensor) -> Vec<Option<f32>> {
    let sums = sums.to_f32_vec();
    let changes = sums.chunks_exact(2).map(|pair| Change {
        moved: f64::from(pair[0]),
        norm: f64::from(pair[1]),
    });
    changes.map(|change| change.relative()).collect()
}

/// Where a stage's tensors come from and go to.
struct Links<'a> {
    pipe: Option<&'a Group>,
    first: bool,
    last: bool,
}

impl Links<'_> {
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
            (false, _) => stage.carried(turn.part),
        };
        Ok(specs
            .into_iter()
            .map(|spec| pipe.start_recv(spec, src))
            .collect::<Result<_, _>>()?)
    }

    /// Starts to send to the next stage, or from the last to the first.
    fn send(&self, tensors: &[Tensor]) -> Result<(), Error> {
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

impl Driver {
    /// Denoises `latents`, this rank's rows of each patch: those after the last step on the last stage, what it was given on
    /// the others; and what was done.
    ///
    /// # Errors
    /// Of the stage, the sampler, or communication; another rank's failure is an [`xdit_comm::Error::PeerLost`].
    ///
    /// # Panics
    /// If there are not as many latents as patches.
    pub fn run<S: Stage, P: Sampler<Error = S::Error>>(
        &self,
        stage: &mut S,
        sampler: &mut P,
        mut latents: Vec<Tensor>,
    ) -> Result<(Vec<Tensor>, Report), S::Error> {
        let schedule = self.schedule;
        assert_eq!(latents.len(), schedule.patches, "latents of each patch");
        let pipe = self.pipe.as_ref().filter(|pipe| pipe.world_size() > 1);
        let links = Links {
            pipe,
            first: pipe.is_none_or(|pipe| pipe.rank() == 0),
            last: pipe.is_none_or(|pipe| pipe.rank() + 1 == pipe.world_size()),
        };
        let mut watch = Watch {
            driver: self,
            own: Vec::new(),
            under_way: VecDeque::new(),
            report: Report::default(),
        };
        let mut states: Vec<P::State> = latents.iter().map(|_| P::State::default()).collect();
        let mut turns: VecDeque<Turn> = VecDeque::new();
        let more = |watch: &mut Watch<'_>, turns: &mut VecDeque<Turn>, step: usize| {
            if turns.is_empty() && step < schedule.steps {
                turns.extend(
                    watch
                        .parts(step)?
                        .into_iter()
                        .map(|part| Turn { step, part }),
                );
            }
            Ok::<_, Error>(())
        };
        more(&mut watch, &mut turns, 0)?;
        let mut posted = match turns.front() {
            Some(turn) => links.post(stage, *turn, &latents)?,
            None => Vec::new(),
        };
        while let Some(turn) = turns.pop_front() {
            let Turn { step, part } = turn;
            let _span = tracing::info_span!("step", index = step).entered();
            let patches = part.patches(schedule.patches);
            let input = posted
                .into_iter()
                .map(Pending::wait_one)
                .collect::<Result<Vec<_>, _>>()
                .map_err(Error::from)?;
            more(&mut watch, &mut turns, step + 1)?;
            let ends_step = turns.front().is_none_or(|next| next.step != step);
            posted = match turns.front() {
                Some(next) => links.post(stage, *next, &latents)?,
                None => Vec::new(),
            };

            let mut hidden = input;
            if links.first {
                for (patch, fresh) in patches.clone().zip(hidden) {
                    latents[patch] = fresh;
                }
                hidden = stage.embed(turn, &latents[patches.clone()])?;
            }
            let hidden = stage.blocks(turn, hidden)?;
            if !links.last {
                links.send(&hidden)?;
            } else {
                let predictions = stage.project(turn, hidden)?;
                for (patch, prediction) in patches.clone().zip(&predictions) {
                    let next = sampler.step(
                        turn,
                        patch,
                        &mut states[patch],
                        prediction,
                        &latents[patch],
                    )?;
                    latents[patch] = next;
                }
                if step + 1 < schedule.steps {
                    links.send(&latents[patches])?;
                }
            }
            if ends_step {
                watch.step_end()?;
                if links.last {
                    sampler.step_end(step, &latents)?;
                }
            }
        }
        Ok((latents, watch.finish()?))
    }
}
