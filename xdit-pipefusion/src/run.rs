//! The denoising loop.

use crate::drift_monitor::DriftMonitor;
use crate::links::{Links, Task};
use crate::work::Work;
use crate::{Driver, Error, Report, Sampler, Stage, Turn, What};
use xdit_kernels::Tensor;

impl Driver {
    /// Denoises `latents`, this rank's rows of each patch. Returns the report, and latents: on the stage of the last leg those
    /// after the last step, on the first stage those that it received last, on the others `latents` unchanged.
    ///
    /// A run that continues an earlier one ([`first_step`](Self::first_step)) gets the latents before that step. Its first step is
    /// whole, so it needs no keys and values of the earlier run. Without stale keys and values it computes what the earlier run
    /// would have computed.
    ///
    /// # Errors
    /// An error of the stage, the sampler, or communication. The failure of another rank is an [`xdit_comm::Error::PeerLost`].
    /// [`Error::Predictions`] if the last leg does not return a prediction for each patch of a turn; [`Error::Plan`] if the
    /// number of latents is not the number of patches.
    pub fn run<S: Stage, P: Sampler<Error = S::Error>>(
        &self,
        stage: &mut S,
        sampler: &mut P,
        mut latents: Vec<Tensor>,
    ) -> Result<(Vec<Tensor>, Report), S::Error> {
        let schedule = self.schedule;
        if latents.len() != schedule.patches {
            let allowed = format!("{}, one a patch", schedule.patches);
            return Err(Error::plan(What::Latents, latents.len(), allowed).into());
        }
        let links = Links::new(self);
        let last = links.legs() - 1;
        let samples = self.placement.end(links.stages()) == links.stage();
        let mut watch = DriftMonitor::new(self);
        let begin = |patch| sampler.begin(links.first_step(), patch);
        let mut states: Vec<P::State> = (0..latents.len()).map(begin).collect();
        let mut work = Work::new(schedule, &links);
        work.post(&mut watch, &links, stage, &latents)?;
        loop {
            let mut over = |step| match samples {
                true => Ok(()),
                false => sampler.step_over(step),
            };
            let Some(task) = work.take(&mut watch, &links, stage, &latents, &mut over)? else {
                break;
            };
            let Task { turn, leg, input } = task;
            let Turn { step, part } = turn;
            let _span = tracing::info_span!("step", index = step).entered();
            let patches = part.patches(schedule.patches);
            work.post(&mut watch, &links, stage, &latents)?;

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
            watch.computed(step)?;
            let mut sends = Vec::new();
            if leg < last {
                sends = links.onward(stage, turn, leg, &hidden)?;
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
                    sends = links.back(&latents[patches]);
                }
            }
            work.send(sends, &links, stage, &latents)?;
            if let Some(step) = work.ended(&links, step).filter(|_| !samples) {
                sampler.step_over(step)?;
            }
            if work.is_step_over(&links, step) {
                // The sampler runs first: the exchange at the end of the step shows the other ranks that it has not failed.
                if samples {
                    sampler.step_end(step, &latents)?;
                }
                if self.max_drift.is_some() {
                    stage.settle()?;
                }
                watch.step_end(step)?;
            }
        }
        stage.settle()?;
        Ok((latents, watch.finish()?))
    }
}
