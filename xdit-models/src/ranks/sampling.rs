//! The scheduler, as the denoising driver runs it.

use xdit_comm::Shard;
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::{Sampler, Turn};

use crate::error::{Error, Result};
use crate::noise::Generator;
use crate::pipeline::finite::{Finite, Origin, StepPart, Whose};
use crate::pipeline::prepare::drawn;
use crate::ranks::compose::{Layout, RankContext};
use crate::ranks::rank_observer::RankObserver;
use crate::schedulers::{Scheduler, StepState};

/// Steps latents, this rank's rows of each patch. They stay f32 in between whatever the dtype: rounding them after every
/// step would cost accuracy and save nothing.
pub(crate) struct Sampling<'a> {
    pub(crate) scheduler: &'a dyn Scheduler,
    pub(crate) rank_context: &'a RankContext,
    pub(crate) layout: &'a Layout,
    pub(crate) watch: &'a RankObserver<'a>,
    /// Where further noise comes from, for all images of the call.
    pub(crate) generators: Vec<Generator>,
    pub(crate) finite: &'a Finite,
    /// Of the call.
    pub(crate) all_images: usize,
    /// Of the call's images `[b, l, c]`, those of this replica, tokens and channels.
    pub(crate) images: Shard,
    /// The shape of all images' latents as diffusers holds them, in which noise is drawn.
    pub(crate) noise_shape: Vec<usize>,
    /// The dtype of the model's predictions in diffusers.
    pub(crate) dtype: DType,
    /// Such latents as tokens.
    pub(crate) pack: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// This step's noise.
    pub(crate) noise_blc: Option<Tensor>,
    /// The latents after the last step, whole.
    pub(crate) latents_blc: Option<Tensor>,
}

impl Sampling<'_> {
    /// This rank's rows of a step's noise. It is drawn for the whole of all images of the call, so that it is the same
    /// however they are shared out.
    fn noise(&mut self, turn: Turn, patch: usize, device: &Device) -> Result<Option<Tensor>> {
        if !self.scheduler.draws_noise(turn.step) {
            return Ok(None);
        }
        if turn.part.has_text() && patch == 0 {
            let dtype = match self.scheduler.noise_is_f32() {
                true => DType::F32,
                false => self.dtype,
            };
            let all = drawn(&self.noise_shape, dtype, &mut self.generators, device)?;
            let own = all.narrow(0, self.images.start, self.images.len)?;
            self.noise_blc = Some((self.pack)(&own)?);
        }
        let rows = self.noise_blc.as_ref();
        rows.map(|noise| self.layout.shard_patch(noise, patch))
            .transpose()
    }
}

impl Sampling<'_> {
    /// Looks through this rank's rows of a step's result.
    fn check(&self, turn: Turn, part: StepPart, rows_blc: &Tensor) -> Result<()> {
        let timesteps = self.scheduler.timesteps();
        let images = Whose::images(self.images.start, self.all_images);
        self.finite.check(rows_blc, images, || Origin::Step {
            index: turn.step,
            of: timesteps.len(),
            part,
            timestep: timesteps[turn.step].to_string(),
        })
    }
}

impl Sampler for Sampling<'_> {
    type Error = Error;
    type State = StepState;

    fn step(
        &mut self,
        turn: Turn,
        patch: usize,
        state: &mut StepState,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor> {
        self.check(turn, StepPart::Transformer, prediction)?;
        let noise = self.noise(turn, patch, latents.device())?;
        let latents = self
            .scheduler
            .step(state, prediction, latents, noise.as_ref())?;
        self.rank_context.note()?;
        self.check(turn, StepPart::Scheduler, &latents)?;
        Ok(latents)
    }

    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<()> {
        let timestep = self.scheduler.timesteps()[step];
        let whole = self
            .watch
            .step_end(step, timestep, latents, self.rank_context, self.layout)?;
        self.latents_blc = whole;
        Ok(())
    }
}
