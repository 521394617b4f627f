//! The denoising loop.

use crate::links::{Inbox, Links};
use crate::watch::Watch;
use crate::{Error, Kept, Schedule, Turn};
use xdit_comm::{Group, Spec};
use xdit_kernels::Tensor;

/// One stage of a model: its first, last or middle blocks. A model with one stage is all of them.
///
/// Tensors hold the rows of one rank: [`Driver`] never looks into them.
pub trait Stage {
    /// What goes wrong in it.
    type Error: From<Error>;

    /// What the stage before hands to this one in a turn, in order. Every rank can tell it from the plan, so that no size
    /// is ever sent.
    fn carried(&self, turn: Turn) -> Vec<Spec>;

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

    /// A step is over; its latents, patch by patch. An error ends the run. The last stage does nothing else meanwhile, and
    /// other ranks that watch the drift soon wait for it.
    ///
    /// # Errors
    /// The sampler's.
    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Self::Error>;
}

/// The denoising loop: every rank of an image runs it, one stage each. One stage and one patch is the plain loop.
///
/// Each turn ([`Schedule::parts`]) a stage waits for its input, posts the receives of later turns' input, computes, and starts
/// to send its output, which it never waits for: buffers are owned by the messages. The last stage steps the turn's patches
/// and sends their latents to the first.
///
/// # Collective
/// Every rank of `pipe` (and of `replica`) calls [`run`](Self::run) with the same schedule.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Which turns there are.
    pub schedule: Schedule,
    /// The stages of this rank's rows, in order; `None` for one stage.
    pub pipe: Option<Group>,
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
    /// Denoises `latents`, this rank's rows of each patch: those after the last step on the last stage, what came last on the
    /// first, what it was given on the others; and what was done.
    ///
    /// # Errors
    /// Of the stage, the sampler, or communication; another rank's failure is an [`xdit_comm::Error::PeerLost`].
    /// [`Error::Predictions`] if the last stage does not predict each patch of a turn.
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
        let links = Links::new(self.pipe.as_ref());
        let mut watch = Watch::new(self);
        let mut states: Vec<P::State> = latents.iter().map(|_| P::State::default()).collect();
        let mut inbox = Inbox::new(schedule, links.stages());
        inbox.post(&mut watch, &links, stage, &latents)?;
        while let Some((turn, input)) = inbox.take()? {
            let Turn { step, part } = turn;
            let _span = tracing::info_span!("step", index = step).entered();
            let patches = part.patches(schedule.patches);
            inbox.post(&mut watch, &links, stage, &latents)?;

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
                    links.send(&latents[patches])?;
                }
            }
            if inbox.is_step_over(step) {
                // First the sampler: what the last one's end brings tells the others that it has not failed.
                if links.last {
                    sampler.step_end(step, &latents)?;
                }
                watch.step_end()?;
            }
        }
        Ok((latents, watch.finish()?))
    }
}
