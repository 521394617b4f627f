//! Denoising diffusion (Ho et al. 2020): fresh noise after each step (diffusers `schedulers/scheduling_ddpm.py`,
//! `DDPMScheduler`).

use xdit_kernels::elementwise::{add_scaled, clamp, weighted_sum};
use xdit_kernels::{DType, Tensor};

use super::noise_schedule::{self, NoiseSchedule, TimestepSpacing, check_steps, refuse_flags};
use super::timesteps::{spaced, steps_alone, too_many, whole};
use super::{Scheduler, StepState, TimestepRequest, no_step, of_shape};
use crate::error::{Error, Result};
use crate::files::config::ConfigFile;

/// The variance of the noise that a step adds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Variance {
    /// The variance of the previous step, given the clean sample.
    FixedSmall,
    /// The same, computed by its logarithm.
    FixedSmallLog,
    /// The variance of the step itself.
    FixedLarge,
}

/// The options of [`Ddpm`].
#[derive(Clone, Debug, PartialEq)]
pub struct DdpmConfig {
    /// The training schedule.
    pub schedule: NoiseSchedule,
    /// The variance of the noise that a step adds.
    pub variance_type: Variance,
    /// The bound of the clean sample on both sides of 0, if it is clipped.
    pub clip_sample: Option<f64>,
}

impl Default for DdpmConfig {
    /// The defaults of the Python class.
    fn default() -> Self {
        Self {
            schedule: NoiseSchedule::new(TimestepSpacing::Leading),
            variance_type: Variance::FixedSmall,
            clip_sample: Some(1.0),
        }
    }
}

impl DdpmConfig {
    /// Reads the options in `config`, which may be of another class, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::Unsupported`] and [`Error::BadConfig`] for options that are not supported or out of range.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        noise_schedule::warn_of_unknown(
            config,
            "DDPMScheduler",
            &[noise_schedule::FIELDS, CLIP_FIELDS, &["variance_type"]],
        );
        refuse_flags(config, &["thresholding"])?;
        Ok(Self {
            schedule: NoiseSchedule::read(config, TimestepSpacing::Leading)?,
            variance_type: match config.value("variance_type") {
                None => Variance::FixedSmall,
                Some(_) => config.choice(
                    "variance_type",
                    "",
                    &[
                        ("fixed_small", Variance::FixedSmall),
                        ("fixed_small_log", Variance::FixedSmallLog),
                        ("fixed_large", Variance::FixedLarge),
                    ],
                )?,
            },
            clip_sample: clip_sample(config)?,
        })
    }
}

/// The options of clipping. Those of thresholding have no effect while it is off.
pub(super) const CLIP_FIELDS: &[&str] = &[
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
];

/// Returns the bound of the clean sample.
pub(super) fn clip_sample(config: &ConfigFile) -> Result<Option<f64>> {
    let range = config.number("clip_sample_range", 1.0, 1e-6..=1e6)?;
    Ok(config.flag("clip_sample", true)?.then_some(range))
}

/// `clean` within the limit, if there is one.
pub(super) fn clipped(clean: Tensor, limit: Option<f64>) -> Result<Tensor> {
    match limit.map(|limit| limit as f32) {
        Some(limit) => Ok(clamp(&clean, -limit, limit)?),
        None => Ok(clean),
    }
}

/// A step to a mix of the sample and of the predicted clean sample, plus fresh noise.
///
/// # Examples
/// ```
/// use xdit_models::schedulers::{Ddpm, DdpmConfig, Scheduler, TimestepRequest};
/// let mut scheduler = Ddpm::new(DdpmConfig::default());
/// scheduler.set_timesteps(&TimestepRequest { num_inference_steps: Some(4), ..Default::default() })?;
/// assert_eq!(scheduler.timesteps(), [750.0, 500.0, 250.0, 0.0]);
/// assert!(scheduler.draws_noise(0) && !scheduler.draws_noise(3));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ddpm {
    config: DdpmConfig,
    alphas_cumprod: Vec<f32>,
    timesteps: Vec<f32>,
    steps: Vec<DdpmStep>,
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
struct DdpmStep {
    /// The shares of image and noise in the sample.
    signal: f32,
    noise: f32,
    /// The weights of the clean sample and of the sample in the next sample.
    clean: f32,
    sample: f32,
    /// The standard deviation of the added noise.
    fresh: Option<f32>,
}

impl Ddpm {
    /// Creates a scheduler without steps. Call [`Scheduler::set_timesteps`] next.
    #[must_use]
    pub fn new(config: DdpmConfig) -> Self {
        Self {
            alphas_cumprod: config.schedule.alphas_cumprod(),
            config,
            timesteps: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Returns the numbers of the step from timestep `t` to `next`, or to the end.
    fn numbers(&self, t: usize, next: Option<usize>, steps: usize) -> Result<DdpmStep> {
        let at = |t: usize| alpha_at(&self.alphas_cumprod, t, steps);
        let alpha = at(t)?;
        let alpha_next = next.map_or(Ok(1.0), at)?;
        let (beta, beta_next) = (1.0 - alpha, 1.0 - alpha_next);
        let alpha_step = alpha / alpha_next;
        let beta_step = 1.0 - alpha_step;
        let variance = (beta_next / beta * beta_step).max(1e-20);
        let deviation = match self.config.variance_type {
            Variance::FixedSmall => variance.sqrt(),
            Variance::FixedSmallLog => (0.5 * variance.ln()).exp(),
            Variance::FixedLarge => beta_step.sqrt(),
        };
        Ok(DdpmStep {
            signal: alpha.sqrt(),
            noise: beta.sqrt(),
            clean: alpha_next.sqrt() * beta_step / beta,
            sample: alpha_step.sqrt() * beta_next / beta,
            fresh: (t > 0).then_some(deviation),
        })
    }
}

impl Scheduler for Ddpm {
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()> {
        let steps = steps_alone(request)?;
        let schedule = &self.config.schedule;
        check_steps(schedule, steps)?;
        let timesteps = whole(
            schedule,
            spaced(schedule, steps, schedule.num_train_timesteps, 0),
        );
        self.steps = timesteps
            .iter()
            .enumerate()
            .map(|(i, t)| self.numbers(*t, timesteps.get(i + 1).copied(), steps))
            .collect::<Result<_>>()?;
        refuse_noise_alone(schedule, self.steps.iter().map(|step| step.signal), steps)?;
        self.timesteps = timesteps.iter().map(|t| *t as f32).collect();
        Ok(())
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn draws_noise(&self, step: usize) -> bool {
        self.steps
            .get(step)
            .is_some_and(|step| step.fresh.is_some())
    }

    fn noise_is_f32(&self) -> bool {
        false
    }

    fn step(
        &self,
        state: &mut StepState,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let output = of_shape("model_output", model_output, sample)?;
        let sample = sample.to_dtype(DType::F32)?;
        let step = self.steps.get(state.step);
        let step = *step.ok_or_else(|| no_step(state.step, self.steps.len()))?;
        let predicted = self.config.schedule.prediction_type;
        let clip = self.config.clip_sample;
        let clean = predicted.clean(&sample, &output, step.signal, step.noise)?;
        let clean = clipped(clean, clip)?;
        let mut next = weighted_sum(&clean, step.clean, &sample, step.sample)?;
        if let Some(deviation) = step.fresh {
            let noise = noise.ok_or_else(|| {
                Error::invalid("noise", "nothing", "given: DDPMScheduler adds noise")
            })?;
            next = add_scaled(&next, &of_shape("noise", noise, &sample)?, deviation)?;
        }
        state.step += 1;
        Ok(next)
    }
}

/// Returns the share of the image's variance at timestep `t`.
pub(super) fn alpha_at(alphas_cumprod: &[f32], t: usize, steps: usize) -> Result<f32> {
    alphas_cumprod.get(t).copied().ok_or_else(|| {
        let last = alphas_cumprod.len().saturating_sub(1);
        too_many(
            steps,
            &format!("its steps_offset leads to timestep {t}, beyond the last, {last}"),
        )
    })
}

/// Returns an error if the model predicts noise at a timestep without any signal, because the clean sample does not follow from
/// it.
pub(super) fn refuse_noise_alone(
    schedule: &NoiseSchedule,
    mut signals: impl Iterator<Item = f32>,
    steps: usize,
) -> Result<()> {
    let epsilon = schedule.prediction_type == noise_schedule::PredictionType::Epsilon;
    match epsilon && signals.any(|signal| signal <= 0.0) {
        false => Ok(()),
        true => Err(too_many(
            steps,
            "with rescale_betas_zero_snr a model that predicts noise can say nothing at the last timestep",
        )),
    }
}
