//! The denoising loop.

use crate::drift_monitor::DriftMonitor;
use crate::inbox::{Inbox, Task};
use crate::links::Links;
use crate::{Error, Kept, Placement, Schedule, Turn};
use xdit_comm::{Group, Spec};
use xdit_kernels::Tensor;

/// One stage of a model: its first, last or middle blocks, or some from both ends. A model with one stage is all of them.
///
/// Tensors hold the rows of one rank: [`Driver`] never looks into them. Where a stage computes is told as a leg of the pass
/// through the model ([`Placement`]); in a linear pipeline each stage has one, of its own number.
pub trait Stage {
    /// What goes wrong in it.
    type Error: From<Error>;

    /// What the leg before hands to this one in a turn, in order. Every rank can tell it from the plan, so that no size
    /// is ever sent.
    fn carried(&self, turn: Turn, leg: usize) -> Vec<Spec>;

    /// Latents to hidden states; on the first leg.
    ///
    /// # Errors
    /// The model's.
    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>, Self::Error>;

    /// Hidden states through the blocks of a leg.
    ///
    /// # Errors
    /// The model's.
    fn blocks(
        &mut self,
        turn: Turn,
        leg: usize,
        hidden: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, Self::Error>;

    /// Hidden states to the prediction for each of the part's patches; on the last leg.
    ///
    /// # Errors
    /// The model's.
    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Self::Error>;

    /// In a U-shaped model: what blocks of leg `from` hand straight to blocks of the later leg `to` in a turn, in order. Asked
    /// for legs of different stages only; what stays on a stage is its own affair.
    fn skipped(&self, turn: Turn, from: usize, to: usize) -> Vec<Spec> {
        let (_, _, _) = (turn, from, to);
        Vec::new()
    }

    /// These, after the blocks of `from`.
    ///
    /// # Errors
    /// The model's.
    fn give(&mut self, turn: Turn, from: usize, to: usize) -> Result<Vec<Tensor>, Self::Error> {
        let (_, _, _) = (turn, from, to);
        Ok(Vec::new())
    }

    /// These, before the blocks of `to`.
    ///
    /// # Errors
    /// The model's.
    fn receive(
        &mut self,
        turn: Turn,
        from: usize,
        to: usize,
        skips: Vec<Tensor>,
    ) -> Result<(), Self::Error> {
        let (_, _, _, _) = (turn, from, to, skips);
        Ok(())
    }
}

/// The update rule of a denoising step. It runs on the stage with the last leg, patch by patch: what it needs of earlier steps
/// lies in a state of each patch, so that it need not know of patches.
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

    /// A step is over; its latents, patch by patch. An error ends the run. The sampler's stage does nothing else meanwhile, and
    /// other ranks that watch the drift soon wait for it.
    ///
    /// # Errors
    /// The sampler's.
    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Self::Error>;
}

/// The denoising loop: every rank of an image runs it, one stage each. One stage and one patch is the plain loop.
///
/// Each turn ([`Schedule::parts`]) a stage waits for its input, posts the receives of later turns' input, computes, and starts
/// to send its output, which it never waits for: buffers are owned by the messages. The stage of the last leg steps the turn's
/// patches and sends their latents to the first, if that is another.
///
/// # Collective
/// Every rank of `pipe` (and of `replica`) calls [`run`](Self::run) with the same schedule.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Which turns there are.
    pub schedule: Schedule,
    /// The stages of this rank's rows, in order; `None` for one stage.
    pub pipe: Option<Group>,
    /// How a pass goes through them.
    pub placement: Placement,
    /// All ranks that make the same image, for what they decide together; `None` if those of `pipe` are all.
    pub replica: Option<Group>,
    /// Runs a step whole when the newest drift that every rank knows, that of the step before the last, is above this (or
    /// is not a number).
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
    /// The same on every rank.
    pub drift: Vec<Option<f32>>,
    /// Every step that ran whole.
    pub whole: Vec<usize>,
    /// Those of them that did because of [`Driver::max_drift`].
    pub refreshed: Vec<usize>,
}

impl Driver {
    /// Denoises `latents`, this rank's rows of each patch: those after the last step on the stage of the last leg, what came last
    /// on the first, what it was given on the others; and what was done.
    ///
    /// # Errors
    /// Of the stage, the sampler, or communication; another rank's failure is an [`xdit_comm::Error::PeerLost`].
    /// [`Error::Predictions`] if the last leg does not predict each patch of a turn.
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
        let links = Links::new(self.pipe.as_ref(), self.placement);
        let last = links.legs() - 1;
        let samples = self.placement.end(links.stages()) == links.stage();
        let mut watch = DriftMonitor::new(self);
        let mut states: Vec<P::State> = latents.iter().map(|_| P::State::default()).collect();
        let mut inbox = Inbox::new(schedule, &links);
        inbox.post(&mut watch, &links, stage, &latents)?;
        while let Some(Task { turn, leg, input }) = inbox.take()? {
            let Turn { step, part } = turn;
            let _span = tracing::info_span!("step", index = step).entered();
            let patches = part.patches(schedule.patches);
            inbox.post(&mut watch, &links, stage, &latents)?;

            let mut hidden = input.stream;
            if leg == 0 {
                for (patch, fresh) in patches.clone().zip(hidden) {
                    latents[patch] = fresh;
                }
                hidden = stage.embed(turn, &latents[patches.clone()])?;
            }
            for (from, skips) in input.skips {
                stage.receive(turn, from, leg, skips)?;
            }
            let hidden = stage.blocks(turn, leg, hidden)?;
            watch.computed(step);
            if leg < last {
                links.send_on(stage, turn, leg, &hidden)?;
            } else {
                let predictions = stage.project(turn, hidden)?;
                if predictions.len() != patches.len() {
                    return Err(Error::Predictions {
                        turn,
                        expected: patches.len(),
                        got: predictions.len(),
                    }
                    .into());
                }
                for (patch, prediction) in patches.clone().zip(&predictions) {
                    let state = &mut states[patch];
                    latents[patch] =
                        sampler.step(turn, patch, state, prediction, &latents[patch])?;
                }
                if step + 1 < schedule.steps {
                    links.send_back(&latents[patches])?;
                }
            }
            if inbox.is_step_over(step) {
                // First the sampler: what the last one's end brings tells the others that it has not failed.
                if samples {
                    sampler.step_end(step, &latents)?;
                }
                watch.step_end(step)?;
            }
        }
        Ok((latents, watch.finish()?))
    }
}
