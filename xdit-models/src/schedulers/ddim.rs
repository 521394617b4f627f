//! The deterministic walk along diffusion's path (Song et al. 2020; diffusers `schedulers/scheduling_ddim.py`,
//! `DDIMScheduler`), without the noise that `eta` would add.

use xdit_kernels::elementwise::{add_scaled, divide, weighted_sum};
use xdit_kernels::{DType, Tensor};

use super::ddpm::{CLIP_FIELDS, alpha_at, clip_sample, clipped, refuse_noise_alone};
use super::noise_schedule::{
    self, NoiseSchedule, PredictionType, TimestepSpacing, check_steps, refuse_flags,
};
use super::timesteps::{spaced, steps_alone, whole};
use super::{Scheduler, StepState, TimestepRequest, no_step, of_shape};
use crate::error::Result;
use crate::files::config::ConfigFile;

/// The options of [`Ddim`].
#[derive(Clone, Debug, PartialEq)]
pub struct DdimConfig {
    /// The training schedule.
    pub schedule: NoiseSchedule,
    /// The bound of the clean sample on both sides of 0, if it is clipped.
    pub clip_sample: Option<f64>,
    /// Whether the last step ends with a sample without noise, and not at timestep 0.
    pub set_alpha_to_one: bool,
}

impl Default for DdimConfig {
    /// The defaults of the Python class.
    fn default() -> Self {
        Self {
            schedule: NoiseSchedule::new(TimestepSpacing::Leading),
            clip_sample: Some(1.0),
            set_alpha_to_one: true,
        }
    }
}

impl DdimConfig {
    /// Reads the options in `config`, which may be of another class, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) and [`Error::BadConfig`](crate::Error::BadConfig) for options that
    /// are not supported or out of range.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        noise_schedule::warn_of_unknown(
            config,
            "DDIMScheduler",
            &[noise_schedule::FIELDS, CLIP_FIELDS, &["set_alpha_to_one"]],
        );
        refuse_flags(config, &["thresholding"])?;
        Ok(Self {
            schedule: NoiseSchedule::read(config, TimestepSpacing::Leading)?,
            clip_sample: clip_sample(config)?,
            set_alpha_to_one: config.flag("set_alpha_to_one", true)?,
        })
    }
}

/// A step towards the same clean sample, with less of the same noise.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor};
/// use xdit_models::schedulers::{Ddim, DdimConfig, Scheduler, StepState, TimestepRequest};
/// let mut scheduler = Ddim::new(DdimConfig::default());
/// scheduler.set_timesteps(&TimestepRequest { num_inference_steps: Some(2), ..Default::default() })?;
/// let cpu = Device::cpu();
/// let (mut state, mut sample) = (StepState::default(), Tensor::from_slice(&[0.5f32], [1], &cpu)?);
/// for _ in 0..2 {
///     // A model that finds no noise.
///     let output = Tensor::from_slice(&[0f32], [1], &cpu)?;
///     sample = scheduler.step(&mut state, &output, &sample, None)?;
/// }
/// assert_eq!(sample.to_vec_blocking::<f32>()?, [1.0]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ddim {
    config: DdimConfig,
    alphas_cumprod: Vec<f32>,
    timesteps: Vec<f32>,
    steps: Vec<DdimStep>,
}

/// The shares of image and noise in the sample, now and after the step.
#[derive(Clone, Copy, Debug)]
struct DdimStep {
    signal: f32,
    noise: f32,
    next_signal: f32,
    next_noise: f32,
}

impl Ddim {
    /// Creates a scheduler without steps. Call [`Scheduler::set_timesteps`] next.
    #[must_use]
    pub fn new(config: DdimConfig) -> Self {
        Self {
            alphas_cumprod: config.schedule.alphas_cumprod(),
            config,
            timesteps: Vec::new(),
            steps: Vec::new(),
        }
    }
}

impl Scheduler for Ddim {
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()> {
        let steps = steps_alone(request)?;
        let schedule = &self.config.schedule;
        check_steps(schedule, steps)?;
        let train = schedule.num_train_timesteps;
        let timesteps = whole(schedule, spaced(schedule, steps, train, 0));
        let at = |t: usize| alpha_at(&self.alphas_cumprod, t, steps);
        let end = match self.config.set_alpha_to_one {
            true => 1.0,
            false => at(0)?,
        };
        // The next timestep is one stride below this one, even if the run ends there.
        let numbers = |t: &usize| {
            let alpha = at(*t)?;
            let next = t.checked_sub(train / steps).map_or(Ok(end), at)?;
            Ok(DdimStep {
                signal: alpha.sqrt(),
                noise: (1.0 - alpha).sqrt(),
                next_signal: next.sqrt(),
                next_noise: (1.0 - next).sqrt(),
            })
        };
        let numbers = timesteps.iter().map(numbers).collect::<Result<Vec<_>>>()?;
        refuse_noise_alone(schedule, numbers.iter().map(|step| step.signal), steps)?;
        self.steps = numbers;
        self.timesteps = timesteps.iter().map(|t| *t as f32).collect();
        Ok(())
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(
        &self,
        state: &mut StepState,
        model_output: &Tensor,
        sample: &Tensor,
        _noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let output = of_shape("model_output", model_output, sample)?;
        let sample = sample.to_dtype(DType::F32)?;
        let step = self.steps.get(state.step);
        let step = *step.ok_or_else(|| no_step(state.step, self.steps.len()))?;
        let predicted = self.config.schedule.prediction_type;
        let clip = self.config.clip_sample;
        let clean = predicted.clean(&sample, &output, step.signal, step.noise)?;
        // The noise is that of the predicted sample, not of the clipped one.
        let noise = match predicted {
            PredictionType::Epsilon => output,
            PredictionType::Sample => {
                divide(&add_scaled(&sample, &clean, -step.signal)?, step.noise)?
            }
            PredictionType::VPrediction => weighted_sum(&output, step.signal, &sample, step.noise)?,
        };
        let clean = clipped(clean, clip)?;
        let next = weighted_sum(&clean, step.next_signal, &noise, step.next_noise)?;
        state.step += 1;
        Ok(next)
    }
}
