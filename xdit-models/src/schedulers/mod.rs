//! Schedulers: the list of noise levels, and the update rule of a step.
//!
//! A scheduler keeps no history: what a step needs of the steps before it lies in a [`StepState`], one for each part
//! of the image that is stepped separately.

mod beta;
mod flow_match_config;
mod flow_match_euler;
mod spacing;

pub use flow_match_config::{FlowMatchEulerConfig, SigmaSpacing, TimeShift};
pub use flow_match_euler::FlowMatchEuler;

use crate::error::Result;

/// More steps than this are refused.
pub const MAX_INFERENCE_STEPS: usize = 100_000;

/// Which steps a run takes: the arguments of diffusers' `set_timesteps`.
#[derive(Clone, Debug, Default)]
pub struct TimestepRequest<'a> {
    /// How many steps; may be left out when one of the lists is given.
    pub num_inference_steps: Option<usize>,
    /// Noise levels to use instead of evenly spaced ones; they are still shifted.
    pub sigmas: Option<&'a [f64]>,
    /// What the model is told instead of what follows from the noise levels.
    pub timesteps: Option<&'a [f64]>,
    /// The dynamic shift, which schedulers that shift by the image's size need.
    pub mu: Option<f64>,
}

/// Where one part of an image stands in the schedule, and what later steps need of earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// The index of the next step.
    pub step: usize,
}

impl StepState {
    /// The state before step `step`: 0 from pure noise, more when a picture is the start.
    #[must_use]
    pub fn at(step: usize) -> Self {
        Self { step }
    }
}

/// The noise levels of a run and the update rule that goes from one to the next.
pub trait Scheduler: Send + Sync + std::fmt::Debug {
    /// Fixes the steps of a run.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) when `request` is contradictory, or asks for no step or
    /// for steps without a finite noise level.
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()>;

    /// The time input of the model for each step.
    fn timesteps(&self) -> &[f32];

    /// The noise level before each step, and after the last.
    fn sigmas(&self) -> &[f32];

    /// Whether [`Scheduler::step`] needs fresh noise, drawn for the whole image.
    fn draws_noise(&self) -> bool {
        false
    }

    /// Takes `sample` over the step that `state` stands at, and advances `state`.
    ///
    /// # Shapes
    /// `sample`, `model_output` and `noise` have the same length.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) when the lengths differ, the schedule is at its end, or
    /// noise is needed and not given.
    fn step(
        &self,
        state: &mut StepState,
        model_output: &[f32],
        sample: &mut [f32],
        noise: Option<&[f32]>,
    ) -> Result<()>;
}
