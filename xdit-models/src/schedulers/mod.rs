//! Schedulers: the list of noise levels, and the update rule of a step.
//!
//! A scheduler keeps no history: what a step needs of the steps before it lies in a [`StepState`], one for each part
//! of the image that is stepped separately.

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

use crate::error::{Error, Result};

/// More steps than this are refused.
pub const MAX_INFERENCE_STEPS: usize = 100_000;

/// Which steps a run takes: the arguments of diffusers' `set_timesteps`.
#[derive(Clone, Debug, Default)]
pub struct TimestepRequest<'a> {
    /// How many steps; may be left out when one of the lists is given.
    pub num_inference_steps: Option<usize>,
    /// Noise levels to use instead of evenly spaced ones; they are still shifted. Flow matching only.
    pub sigmas: Option<&'a [f64]>,
    /// What the model is told instead of what follows from the noise levels. Flow matching only.
    pub timesteps: Option<&'a [f64]>,
    /// The dynamic shift, which schedulers that shift by the image's size need.
    pub mu: Option<f64>,
}

/// Where one part of an image stands in the schedule, and what later steps need of earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// The index of the next step.
    pub step: usize,
    /// What a multistep scheduler keeps of the last steps, oldest first; each as long as the sample.
    pub history: Vec<Vec<f32>>,
}

impl StepState {
    /// The state before step `step`: 0 from pure noise, more when a picture is the start.
    #[must_use]
    pub fn at(step: usize) -> Self {
        Self {
            step,
            history: Vec::new(),
        }
    }
}

/// The noise levels of a run and the update rule that goes from one to the next.
pub trait Scheduler: Send + Sync + std::fmt::Debug {
    /// Fixes the steps of a run.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when `request` is contradictory, or asks for no step or
    /// for steps without a finite noise level.
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()>;

    /// The time input of the model for each step.
    fn timesteps(&self) -> &[f32];

    /// The noise level before each step, and after the last; empty for a scheduler that knows timesteps only.
    fn sigmas(&self) -> &[f32] {
        &[]
    }

    /// What noise of variance 1 is multiplied by to be the sample before the first step.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// What the sample is divided by for the model to read in a step (diffusers' `scale_model_input`); none where it is
    /// read as it is.
    fn model_input_divisor(&self, _step: usize) -> Option<f32> {
        None
    }

    /// Whether [`Scheduler::step`] needs fresh noise in this step, drawn for the whole image.
    fn draws_noise(&self, _step: usize) -> bool {
        false
    }

    /// Whether that noise is drawn in f32, and not in the dtype of the model's output.
    fn noise_is_f32(&self) -> bool {
        true
    }

    /// Takes `sample` over the step that `state` stands at, and advances `state`.
    ///
    /// # Shapes
    /// `sample`, `model_output` and `noise` have the same length.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the lengths differ, the schedule is at its end, or
    /// noise is needed and not given.
    fn step(
        &self,
        state: &mut StepState,
        model_output: &[f32],
        sample: &mut [f32],
        noise: Option<&[f32]>,
    ) -> Result<()>;
}

fn no_step(step: usize, steps: usize) -> Error {
    Error::invalid("step", step, format!("below {steps}: the schedule's steps"))
}

fn same_length(argument: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::invalid(
        argument,
        format!("{found} values"),
        format!("{expected} values, as many as the sample has"),
    ))
}

#[cfg(test)]
mod tests;
