//! Schedulers: the list of noise levels, and the update rule of a step.
//!
//! A scheduler keeps no history. The values that a step needs of earlier steps are in a [`StepState`], one for each part of the
//! image that is stepped separately.

mod beta;
mod choice;
mod ddim;
mod ddpm;
mod dpm_solver;
mod dpm_solver_config;
mod euler;
mod f32_math;
mod flow_match_config;
mod flow_match_euler;
mod noise_schedule;
mod spacing;
mod timesteps;

pub use choice::SchedulerConfig;
pub use ddim::{Ddim, DdimConfig};
pub use ddpm::{Ddpm, DdpmConfig, Variance};
pub use dpm_solver::DpmSolverMultistep;
pub use dpm_solver_config::{DpmSolverMultistepConfig, FinalSigma, SolverType};
pub use euler::{Euler, EulerConfig};
pub use flow_match_config::{FlowMatchEulerConfig, TimeShift};
pub use flow_match_euler::FlowMatchEuler;
pub use noise_schedule::{Betas, NoiseSchedule, PredictionType, TimestepSpacing};
pub use spacing::SigmaSpacing;

use xdit_kernels::{DType, Tensor};

use crate::error::{Error, Result};
use crate::quote;

/// The largest number of steps.
pub const MAX_INFERENCE_STEPS: usize = 100_000;

/// The steps of a run: the arguments of diffusers' `set_timesteps`.
#[derive(Clone, Debug, Default)]
pub struct TimestepRequest<'a> {
    /// The number of steps. It may be left out if one of the lists is given.
    pub num_inference_steps: Option<usize>,
    /// Noise levels instead of evenly spaced ones. They are still shifted. Flow matching only.
    pub sigmas: Option<&'a [f64]>,
    /// The timesteps that the model receives, instead of those of the noise levels. Flow matching only.
    pub timesteps: Option<&'a [f64]>,
    /// The dynamic shift, for schedulers that shift with the image size.
    pub mu: Option<f64>,
}

/// The position of one part of an image in the schedule, and the values that later steps need.
#[derive(Clone, Debug, Default)]
pub struct StepState {
    /// The index of the next step.
    pub step: usize,
    /// The values that a multistep scheduler keeps of the last steps, oldest first: f32, in the shape of the sample.
    pub history: Vec<Tensor>,
}

impl StepState {
    /// Creates the state before step `step`: 0 for pure noise, more if the run starts from an image.
    #[must_use]
    pub fn at(step: usize) -> Self {
        Self {
            step,
            history: Vec::new(),
        }
    }
}

/// The noise levels of a run, and the update rule from one level to the next.
pub trait Scheduler: Send + Sync + std::fmt::Debug {
    /// Sets the steps of a run.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if `request` is contradictory, has no step, or has steps without a finite noise level.
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()>;

    /// Returns the time input of the model for each step.
    fn timesteps(&self) -> &[f32];

    /// Returns the noise level before each step and after the last. Empty for a scheduler that uses only timesteps.
    fn sigmas(&self) -> &[f32] {
        &[]
    }

    /// Returns the factor of noise of variance 1 in the sample before the first step.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// Returns the divisor of the sample before the model reads it in a step (diffusers' `scale_model_input`), or `None` for no
    /// division.
    fn model_input_divisor(&self, _step: usize) -> Option<f32> {
        None
    }

    /// Returns whether [`Scheduler::step`] needs fresh noise in this step, drawn for the whole image.
    fn draws_noise(&self, _step: usize) -> bool {
        false
    }

    /// Returns whether that noise is drawn in f32, and not in the dtype of the model's output.
    fn noise_is_f32(&self) -> bool {
        true
    }

    /// Returns the number of values in [`StepState::history`] after `finished` steps.
    fn history_len(&self, _finished: usize) -> usize {
        0
    }

    /// Returns the sample after the step of `state`, f32, and advances `state`.
    ///
    /// All operations run on the sample's device in f32, and each is rounded as in torch. The host reads nothing.
    ///
    /// # Shapes
    /// `sample`, `model_output` and `noise` have the same shape, whichever it is.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the shapes differ, the schedule is at its end, or required noise is missing.
    fn step(
        &self,
        state: &mut StepState,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor>;
}

fn no_step(step: usize, steps: usize) -> Error {
    Error::invalid("step", step, format!("below {steps}: the schedule's steps"))
}

/// `given` as f32, if it has the shape of the sample.
fn of_shape(argument: &'static str, given: &Tensor, sample: &Tensor) -> Result<Tensor> {
    if given.shape() == sample.shape() {
        return Ok(given.to_dtype(DType::F32)?);
    }
    Err(Error::invalid(
        argument,
        format!("a tensor of shape {}", quote::list(given.shape())),
        format!("of the sample's shape, {}", quote::list(sample.shape())),
    ))
}

#[cfg(test)]
mod tests;
