//! The scheduler as a sampler of the denoising driver.

use xdit_comm::Shard;
use xdit_kernels::sums::RunningSums;
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::{Sampler, Turn};

use crate::error::{Error, Result};
use crate::noise::Generator;
use crate::pipeline::finite::{Finite, Origin, StepPart, Whose};
use crate::pipeline::prepare::drawn;
use crate::ranks::compose::{RankContext, StreamLayout};
use crate::ranks::keeping::Keeping;
use crate::ranks::rank_observer::RankObserver;
use crate::schedulers::{Scheduler, StepState};

/// Steps this rank's rows of each patch's latents. Latents stay f32 between steps for all dtypes: rounding after every step
/// would cost accuracy and save nothing.
pub(crate) struct Sampling<'a> {
    pub(crate) scheduler: &'a dyn Scheduler,
    pub(crate) rank_context: &'a RankContext,
    pub(crate) layout: &'a StreamLayout,
    pub(crate) watch: &'a RankObserver<'a>,
    /// The generators of further noise, for all images of the call.
    pub(crate) generators: Vec<Generator>,
    pub(crate) finite: &'a Finite,
    /// The number of images of the call.
    pub(crate) all_images: usize,
    /// This replica's images among those of the call.
    pub(crate) images: Shard,
    /// The shape of all images' latents in diffusers, in which noise is drawn.
    pub(crate) noise_shape: Vec<usize>,
    /// The dtype of the model's predictions in diffusers.
    pub(crate) dtype: DType,
    /// Converts such latents to tokens.
    pub(crate) pack: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// The noise of the newest step that drew some.
    pub(crate) noise_blc: Option<Tensor>,
    /// The next step whose noise is not drawn yet.
    pub(crate) noise_step: usize,
    /// What the scheduler remembers of each patch, in this rank's rows: in the beginning that of an earlier run.
    pub(crate) remembered: Vec<Vec<Tensor>>,
    /// What keeps the latents of each step, if someone does.
    pub(crate) keeping: Option<Keeping>,
    /// The number of values of this step that are not finite: for each [`StepPart`] and each image.
    pub(crate) not_finite: Option<RunningSums>,
    /// The latents after the last step, whole.
    pub(crate) latents_blc: Option<Tensor>,
}

impl Sampling<'_> {
    /// Returns this rank's rows of a step's noise. Noise is drawn for all images of the call, so it is the same for any number
    /// of ranks. The noise of steps that an earlier run finished is drawn too, because the generators go on from there.
    fn noise(&mut self, turn: Turn, patch: usize, device: &Device) -> Result<Option<Tensor>> {
        if !self.scheduler.draws_noise(turn.step) {
            return Ok(None);
        }
        while self.noise_step <= turn.step {
            let step = self.noise_step;
            self.noise_step += 1;
            if !self.scheduler.draws_noise(step) {
                continue;
            }
            let dtype = match self.scheduler.noise_is_f32() {
                true => DType::F32,
                false => self.dtype,
            };
            let all = drawn(&self.noise_shape, dtype, &mut self.generators, device)?;
            if step == turn.step {
                let own = all.narrow(0, self.images.start, self.images.len)?;
                self.noise_blc = Some((self.pack)(&own)?);
            }
        }
        let rows = self.noise_blc.as_ref();
        rows.map(|noise| self.layout.shard_patch(noise, patch))
            .transpose()
    }
}

impl Sampling<'_> {
    /// Counts values of this rank's rows that are not finite.
    fn count_not_finite(&mut self, part: StepPart, rows_blc: &Tensor) -> Result<()> {
        let images = self.images.len;
        let counts = match &mut self.not_finite {
            Some(counts) => counts,
            none => none.insert(RunningSums::zeros(2 * images, rows_blc.device())?),
        };
        let at = match part {
            StepPart::Transformer => 0,
            StepPart::Scheduler => images,
        };
        Ok(counts.add_not_finite(at, rows_blc)?)
    }

    /// Checks the counts of a step. This is the only host read in a step; it ends a failed run early.
    fn check_step(&mut self, step: usize) -> Result<()> {
        let Some(counts) = self.not_finite.take() else {
            return Ok(());
        };
        self.rank_context.settle()?;
        let counts = counts.to_vec_blocking(0..counts.count())?;
        let (predicted, stepped) = counts.split_at(self.images.len);
        let timesteps = self.scheduler.timesteps();
        for (part, counts) in [
            (StepPart::Transformer, predicted),
            (StepPart::Scheduler, stepped),
        ] {
            let bad: Vec<usize> = (0..counts.len()).filter(|i| counts[*i] > 0.0).collect();
            if bad.is_empty() {
                continue;
            }
            let images = Whose::images(self.images.start, self.all_images);
            let origin = Origin::Step {
                index: step,
                of: timesteps.len(),
                part,
                timestep: timesteps[step].to_string(),
            };
            return self.finite.found(&bad, images, origin);
        }
        Ok(())
    }
}

impl Sampler for Sampling<'_> {
    type Error = Error;
    type State = StepState;

    fn begin(&self, first_step: usize, patch: usize) -> StepState {
        let mut state = StepState::at(first_step);
        state.history = self.remembered[patch].clone();
        state
    }

    fn step(
        &mut self,
        turn: Turn,
        patch: usize,
        state: &mut StepState,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor> {
        self.count_not_finite(StepPart::Transformer, prediction)?;
        let noise = self.noise(turn, patch, latents.device())?;
        let latents = self
            .scheduler
            .step(state, prediction, latents, noise.as_ref())?;
        self.rank_context.note()?;
        if self.keeping.is_some() {
            self.remembered[patch].clone_from(&state.history);
        }
        self.count_not_finite(StepPart::Scheduler, &latents)?;
        Ok(latents)
    }

    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<()> {
        self.check_step(step)?;
        let timesteps = self.scheduler.timesteps();
        let (rank_context, layout) = (self.rank_context, self.layout);
        let whole = self.watch.latents(step, latents, rank_context, layout)?;
        let finished = step + 1;
        if let (Some(keeping), Some(whole)) = (&mut self.keeping, &whole)
            && finished < timesteps.len()
        {
            let parts = 0..self.scheduler.history_len(finished);
            let history = parts.map(|part| {
                let patches: Vec<_> = self.remembered.iter().map(|of| of[part].clone()).collect();
                rank_context.gather(layout, &patches)
            });
            keeping.made(finished, whole, &history.collect::<Result<Vec<_>>>()?)?;
        }
        self.watch
            .step_end(step, timesteps[step], whole.as_ref(), rank_context, layout)?;
        self.latents_blc = whole;
        Ok(())
    }

    fn step_over(&mut self, step: usize) -> Result<()> {
        let finished = step + 1;
        match &mut self.keeping {
            Some(keeping) if finished < self.scheduler.timesteps().len() => {
                keeping.awaited(finished, self.scheduler.history_len(finished))
            }
            _ => Ok(()),
        }
    }
}
