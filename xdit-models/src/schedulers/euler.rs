//! Euler's method on the noise level (Karras et al. 2022, algorithm 2 without churn; diffusers
//! `schedulers/scheduling_euler_discrete.py`, `EulerDiscreteScheduler`).

use xdit_kernels::elementwise::{add_scaled, divide, sub};
use xdit_kernels::{DType, Tensor};

use super::dpm_solver::keep_some_signal;
use super::dpm_solver_config::{FinalSigma, final_sigma};
use super::noise_schedule::{
    self, NoiseSchedule, PredictionType, TimestepSpacing, check_steps, linspace_f32,
};
use super::spacing::{linspace, sigma_spacing};
use super::timesteps::{
    all_sigmas, interpolate, logarithms, spaced, steps_alone, timestep_of, too_many,
};
use super::{
    Scheduler, SigmaSpacing, StepState, TimestepRequest, f32_math, no_step, of_shape, spacing,
};
use crate::error::Result;
use crate::files::config::ConfigFile;

/// The options of [`Euler`].
#[derive(Clone, Debug, PartialEq)]
pub struct EulerConfig {
    /// The training schedule.
    pub schedule: NoiseSchedule,
    /// Whether noise levels are evenly spaced in their logarithm, instead of being those of the timesteps.
    pub log_linear: bool,
    /// Another spacing of the noise levels.
    pub spacing: Option<SigmaSpacing>,
    /// Overrides the lowest noise level of `spacing`.
    pub sigma_min: Option<f64>,
    /// Overrides the highest noise level of `spacing`.
    pub sigma_max: Option<f64>,
    /// Whether a model that predicts velocities receives the logarithm of the noise level instead of the timestep.
    pub continuous: bool,
    /// The noise level after the last step.
    pub final_sigmas_type: FinalSigma,
}

impl Default for EulerConfig {
    /// The defaults of the Python class.
    fn default() -> Self {
        Self {
            schedule: NoiseSchedule::new(TimestepSpacing::Linspace),
            log_linear: false,
            spacing: None,
            sigma_min: None,
            sigma_max: None,
            continuous: false,
            final_sigmas_type: FinalSigma::Zero,
        }
    }
}

impl EulerConfig {
    /// Reads the options in `config`, which may be of another class, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) and [`Error::BadConfig`](crate::Error::BadConfig) for options that
    /// are not supported or out of range.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        noise_schedule::warn_of_unknown(
            config,
            "EulerDiscreteScheduler",
            &[noise_schedule::FIELDS, FIELDS],
        );
        let schedule = NoiseSchedule::read(config, TimestepSpacing::Linspace)?;
        let continuous = config.choice(
            "timestep_type",
            "discrete",
            &[("discrete", false), ("continuous", true)],
        )?;
        Ok(Self {
            log_linear: config.choice(
                "interpolation_type",
                "linear",
                &[("linear", false), ("log_linear", true)],
            )?,
            spacing: sigma_spacing(config)?,
            sigma_min: config.optional_number("sigma_min", 1e-12..=1e6)?,
            sigma_max: config.optional_number("sigma_max", 1e-12..=1e6)?,
            continuous: continuous && schedule.prediction_type == PredictionType::VPrediction,
            final_sigmas_type: final_sigma(config)?,
            schedule,
        })
    }
}

/// The fields besides those of the training schedule.
const FIELDS: &[&str] = &[
    "interpolation_type",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "sigma_min",
    "sigma_max",
    "timestep_type",
    "final_sigmas_type",
];

/// A straight step to the next noise level. The sample grows with the noise level, so the model reads a scaled sample.
///
/// # Examples
/// ```
/// use xdit_models::schedulers::{Euler, EulerConfig, Scheduler, TimestepRequest};
/// let mut scheduler = Euler::new(EulerConfig::default());
/// scheduler.set_timesteps(&TimestepRequest { num_inference_steps: Some(2), ..Default::default() })?;
/// assert_eq!(scheduler.timesteps(), [999.0, 0.0]);
/// let sigma = scheduler.sigmas()[0];
/// assert_eq!(scheduler.init_noise_sigma(), sigma);
/// assert!(scheduler.model_input_divisor(0).is_some_and(|divisor| divisor >= sigma));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Euler {
    config: EulerConfig,
    alphas_cumprod: Vec<f32>,
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
}

impl Euler {
    /// Creates a scheduler without steps. Call [`Scheduler::set_timesteps`] next.
    #[must_use]
    pub fn new(config: EulerConfig) -> Self {
        let mut alphas_cumprod = config.schedule.alphas_cumprod();
        if config.schedule.rescale_betas_zero_snr {
            keep_some_signal(&mut alphas_cumprod);
        }
        Self {
            config,
            alphas_cumprod,
            timesteps: Vec::new(),
            sigmas: vec![0.0],
        }
    }

    /// Returns the timesteps of a run, in f32 from the start as in diffusers.
    fn spaced(&self, steps: usize) -> Vec<f32> {
        let schedule = &self.config.schedule;
        let train = schedule.num_train_timesteps;
        match schedule.timestep_spacing {
            TimestepSpacing::Linspace => {
                let rising = linspace(0.0, (train - 1) as f64, steps);
                rising.into_iter().rev().map(|t| t as f32).collect()
            }
            spacing => {
                let offset = match spacing {
                    TimestepSpacing::Leading => schedule.steps_offset,
                    _ => 0,
                };
                let timesteps = spaced(schedule, steps, train, 0).into_iter();
                timesteps.map(|t| t as f32 + offset as f32).collect()
            }
        }
    }
}

impl Scheduler for Euler {
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()> {
        let steps = steps_alone(request)?;
        let config = &self.config;
        check_steps(&config.schedule, steps)?;
        let mut timesteps = self.spaced(steps);
        let all = all_sigmas(&self.alphas_cumprod);
        let (Some(&min), Some(&max)) = (all.first(), all.last()) else {
            return Err(too_many(steps, "its training schedule is empty"));
        };
        let logs = logarithms(&all);
        let log = |sigma: f32| f64::from(f32_math::ln(sigma));
        let mut sigmas: Vec<f64> = match config.log_linear {
            // One more than the number of steps, as in diffusers.
            true => linspace_f32(log(max), log(min), steps + 1)
                .into_iter()
                .map(|log| f64::from(log.exp()))
                .collect(),
            false => timesteps
                .iter()
                .map(|t| interpolate(f64::from(*t), &all))
                .collect(),
        };
        if let Some(spacing) = config.spacing {
            let ends = (
                config.sigma_max.unwrap_or(sigmas[0]),
                config.sigma_min.unwrap_or(sigmas[sigmas.len() - 1]),
            );
            sigmas = spacing::levels(spacing, ends, steps);
            let found = sigmas.iter().map(|sigma| timestep_of(*sigma, &logs) as f32);
            timesteps = found.collect();
        }
        sigmas.push(match config.final_sigmas_type {
            FinalSigma::SigmaMin => f64::from(min),
            FinalSigma::Zero => 0.0,
        });
        self.sigmas = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        self.timesteps = match config.continuous {
            true => self.sigmas[..steps]
                .iter()
                .map(|sigma| 0.25 * sigma.ln())
                .collect(),
            false => timesteps,
        };
        Ok(())
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn init_noise_sigma(&self) -> f32 {
        let highest = self.sigmas.iter().copied().fold(0.0, f32::max);
        match self.config.schedule.timestep_spacing {
            TimestepSpacing::Leading => f32_math::sqrt(highest * highest + 1.0),
            _ => highest,
        }
    }

    fn model_input_divisor(&self, step: usize) -> Option<f32> {
        self.sigmas
            .get(step)
            .map(|sigma| f32_math::sqrt(sigma * sigma + 1.0))
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
        let step = state.step;
        if step >= self.timesteps.len() {
            return Err(no_step(step, self.timesteps.len()));
        }
        let (sigma, next) = (self.sigmas[step], self.sigmas[step + 1]);
        let dt = next - sigma;
        let all = sigma * sigma + 1.0;
        let part = -sigma / f32_math::sqrt(all);
        let predicted = self.config.schedule.prediction_type;
        let clean = match predicted {
            PredictionType::Epsilon => add_scaled(&sample, &output, -sigma)?,
            PredictionType::Sample => output,
            PredictionType::VPrediction => add_scaled(&divide(&sample, all)?, &output, part)?,
        };
        let slope = divide(&sub(&sample, &clean)?, sigma)?;
        let next = add_scaled(&sample, &slope, dt)?;
        state.step += 1;
        Ok(next)
    }
}
