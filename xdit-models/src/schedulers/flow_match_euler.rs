//! The Euler scheduler of flow matching (diffusers `schedulers/scheduling_flow_match_euler_discrete.py`).
//!
//! The arithmetic follows the Python code line by line: f32 where NumPy or torch use f32, and f64 where they use f64, so that
//! the noise levels are equal.

use xdit_kernels::elementwise::{add_scaled, weighted_sum};
use xdit_kernels::{DType, Tensor};

use super::flow_match_config::{FlowMatchEulerConfig, TimeShift};
use super::spacing::{Real, linspace};
use super::{
    MAX_INFERENCE_STEPS, Scheduler, StepState, TimestepRequest, no_step, of_shape, spacing,
};
use crate::error::{Error, Result};
use crate::quote;

/// A straight step along the predicted velocity: `sample + (sigma_next - sigma) * velocity`.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor};
/// use xdit_models::schedulers::{FlowMatchEuler, FlowMatchEulerConfig, Scheduler, StepState, TimestepRequest};
/// let config = FlowMatchEulerConfig { shift: 3.0, ..Default::default() };
/// let mut scheduler = FlowMatchEuler::new(config);
/// scheduler.set_timesteps(&TimestepRequest { sigmas: Some(&[1.0, 0.5]), ..Default::default() })?;
/// assert_eq!(scheduler.sigmas(), [1.0, 0.75, 0.0]);
/// let cpu = Device::cpu();
/// let (sample, velocity) = (Tensor::from_slice(&[1f32], [1], &cpu)?, Tensor::from_slice(&[2f32], [1], &cpu)?);
/// let mut state = StepState::default();
/// let sample = scheduler.step(&mut state, &velocity, &sample, None)?;
/// assert_eq!((sample.to_vec_blocking::<f32>()?, state.step), (vec![0.5], 1));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FlowMatchEuler {
    config: FlowMatchEulerConfig,
    /// The ends of the training schedule. A static shift has been applied once already.
    sigma_min: f64,
    sigma_max: f64,
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
}

impl FlowMatchEuler {
    /// Creates a scheduler without steps. Call [`Scheduler::set_timesteps`] next.
    #[must_use]
    pub fn new(config: FlowMatchEulerConfig) -> Self {
        let train = config.num_train_timesteps as f32;
        let end = |timestep: f32| {
            let sigma = timestep / train;
            f64::from(if config.use_dynamic_shifting {
                sigma
            } else {
                shift(config.shift, sigma)
            })
        };
        let (sigma_min, sigma_max) = (end(1.0), end(train));
        Self {
            config,
            sigma_min,
            sigma_max,
            timesteps: Vec::new(),
            sigmas: vec![0.0],
        }
    }

    /// Returns the options.
    #[must_use]
    pub fn config(&self) -> &FlowMatchEulerConfig {
        &self.config
    }

    /// `sample` mixed with `noise` to the noise level before step `step`, f32, as a run that starts from a picture does
    /// (diffusers' `scale_noise`).
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the shapes differ or the step does not exist.
    pub fn scale_noise(&self, step: usize, sample: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let sigma = *self
            .sigmas
            .get(step)
            .ok_or_else(|| no_step(step, self.timesteps.len()))?;
        let noise = of_shape("noise", noise, sample)?;
        let sample = sample.to_dtype(DType::F32)?;
        Ok(weighted_sum(&noise, sigma, &sample, 1.0 - sigma)?)
    }

    /// Shifts, stretches and respaces the noise levels, and converts them to f32.
    fn arrange<R: Real>(&self, mut sigmas: Vec<R>, mu: Option<f64>) -> Result<Vec<f32>> {
        let config = &self.config;
        if config.use_dynamic_shifting {
            let mu = mu.ok_or_else(|| {
                Error::invalid("mu", "nothing", "given: use_dynamic_shifting is on")
            })?;
            let weight = match config.time_shift_type {
                TimeShift::Exponential => mu.exp(),
                TimeShift::Linear => mu,
            };
            for sigma in &mut sigmas {
                *sigma = time_shift(weight, *sigma);
            }
        } else {
            for sigma in &mut sigmas {
                *sigma = shift(config.shift, *sigma);
            }
        }
        if let Some(terminal) = config.shift_terminal {
            spacing::stretch_to_terminal(&mut sigmas, terminal);
        }
        let ends = || {
            let first = sigmas.first().map_or(0.0, |sigma| sigma.to_f64());
            let last = sigmas.last().map_or(0.0, |sigma| sigma.to_f64());
            (
                config.sigma_max.unwrap_or(first),
                config.sigma_min.unwrap_or(last),
            )
        };
        let Some(spacing) = config.spacing else {
            return Ok(sigmas.iter().map(|sigma| sigma.to_f64() as f32).collect());
        };
        let spaced = spacing::levels(spacing, ends(), sigmas.len());
        Ok(spaced.into_iter().map(|sigma| sigma as f32).collect())
    }
}

impl Scheduler for FlowMatchEuler {
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()> {
        let steps = step_count(request)?;
        let train = self.config.num_train_timesteps as f64;
        let given: Option<Vec<f32>> = request
            .timesteps
            .map(|list| list.iter().map(|t| *t as f32).collect());
        let mut sigmas = match (request.sigmas, &given) {
            (Some(sigmas), _) => {
                self.arrange(sigmas.iter().map(|s| *s as f32).collect(), request.mu)?
            }
            (None, Some(timesteps)) => self.arrange(
                timesteps.iter().map(|t| t / train as f32).collect(),
                request.mu,
            )?,
            (None, None) => {
                let timesteps = linspace(self.sigma_max * train, self.sigma_min * train, steps);
                self.arrange(
                    timesteps.into_iter().map(|t| t / train).collect(),
                    request.mu,
                )?
            }
        };
        if let Some(sigma) = sigmas.iter().find(|sigma| !sigma.is_finite()) {
            let allowed = "such that every noise level is finite (after the shifts that scheduler_config.json asks for)";
            return Err(Error::invalid("sigmas", sigma, allowed));
        }
        let scaled = |sigmas: &[f32]| sigmas.iter().map(|sigma| sigma * train as f32).collect();
        self.timesteps = given.unwrap_or_else(|| scaled(&sigmas));
        if self.config.invert_sigmas {
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - *sigma);
            self.timesteps = scaled(&sigmas);
            sigmas.push(1.0);
        } else {
            sigmas.push(0.0);
        }
        self.sigmas = sigmas;
        Ok(())
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn draws_noise(&self, _step: usize) -> bool {
        self.config.stochastic_sampling
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
        let (Some(&sigma), Some(&next)) =
            (self.sigmas.get(state.step), self.sigmas.get(state.step + 1))
        else {
            return Err(no_step(state.step, self.timesteps.len()));
        };
        let stepped = if self.config.stochastic_sampling {
            let noise = noise.ok_or_else(|| {
                Error::invalid("noise", "nothing", "given: stochastic_sampling is on")
            })?;
            let noise = of_shape("noise", noise, &sample)?;
            let clean = add_scaled(&sample, &output, -sigma)?;
            weighted_sum(&clean, 1.0 - next, &noise, next)?
        } else {
            add_scaled(&sample, &output, next - sigma)?
        };
        state.step += 1;
        Ok(stepped)
    }
}

/// The static shift: `shift * sigma / (1 + (shift - 1) * sigma)`.
fn shift<R: Real>(shift: f64, sigma: R) -> R {
    R::of(shift) * sigma / (R::of(1.0) + R::of(shift - 1.0) * sigma)
}

/// The dynamic shift: `weight / (weight + (1 / sigma - 1))`.
fn time_shift<R: Real>(weight: f64, sigma: R) -> R {
    let weight = R::of(weight);
    weight / (weight + (R::of(1.0) / sigma - R::of(1.0)))
}

fn step_count(request: &TimestepRequest<'_>) -> Result<usize> {
    let lists = [("sigmas", request.sigmas), ("timesteps", request.timesteps)];
    let mut steps = request.num_inference_steps;
    for (argument, list) in lists {
        let Some(list) = list else { continue };
        if steps.is_some_and(|steps| steps != list.len()) {
            let allowed = "as many as there are steps (`num_inference_steps`, and the other list)";
            return Err(Error::invalid(
                argument,
                quote::counted(list.len(), "value"),
                allowed,
            ));
        }
        steps = Some(list.len());
    }
    match steps {
        Some(steps) if (1..=MAX_INFERENCE_STEPS).contains(&steps) => Ok(steps),
        other => {
            let given = other.map_or("nothing".into(), |steps| steps.to_string());
            Err(Error::invalid(
                "num_inference_steps",
                given,
                format!("from 1 to {MAX_INFERENCE_STEPS}"),
            ))
        }
    }
}

#[cfg(test)]
mod tests;
