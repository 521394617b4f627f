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

use xdit_kernels::{DType, Tensor};

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
#[derive(Clone, Debug, Default)]
pub struct StepState {
    /// The index of the next step.
    pub step: usize,
    /// What a multistep scheduler keeps of the last steps, oldest first: f32, of the sample's shape.
    pub history: Vec<Tensor>,
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

    /// The sample after the step that `state` stands at, f32; advances `state`.
    ///
    /// Everything is computed on the sample's device in f32, each operation rounded as torch rounds it, and nothing is read on the
    /// host.
    ///
    /// # Shapes
    /// `sample`, `model_output` and `noise` have the same shape, whichever it is.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the shapes differ, the schedule is at its end, or
    /// noise is needed and not given.
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
        format!("a tensor of shape {:?}", given.shape()),
        format!("of the sample's shape, {:?}", sample.shape()),
    ))
}

#[cfg(test)]
mod tests;
