//! DPM-Solver++ over several steps (Lu et al. 2022; diffusers `schedulers/scheduling_dpmsolver_multistep.py`,
//! `DPMSolverMultistepScheduler`).

use xdit_kernels::elementwise::{add_scaled, scale, sub, weighted_sum};
use xdit_kernels::{DType, Tensor};

use super::dpm_solver_config::{DpmSolverMultistepConfig, FinalSigma, SolverType};
use super::noise_schedule::check_steps;
use super::timesteps::{
    all_sigmas, interpolate, logarithms, spaced, steps_alone, timestep_of, too_many, whole,
};
use super::{
    Scheduler, SigmaSpacing, StepState, TimestepRequest, f32_math, no_step, of_shape, spacing,
};
use crate::error::{Error, Result};
use crate::quote;

/// Runs with fewer steps end with steps of lower order.
const SHORT: usize = 15;

/// A step that extrapolates the clean sample from those of the previous steps.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor};
/// use xdit_models::schedulers::{
///     DpmSolverMultistep, DpmSolverMultistepConfig, Scheduler, StepState, TimestepRequest,
/// };
/// let mut scheduler = DpmSolverMultistep::new(DpmSolverMultistepConfig::default());
/// scheduler.set_timesteps(&TimestepRequest { num_inference_steps: Some(3), ..Default::default() })?;
/// assert_eq!(scheduler.timesteps(), [999.0, 666.0, 333.0]);
/// let cpu = Device::cpu();
/// let (sample, output) = (Tensor::from_slice(&[0.5f32], [1], &cpu)?, Tensor::from_slice(&[0f32], [1], &cpu)?);
/// let mut state = StepState::default();
/// scheduler.step(&mut state, &output, &sample, None)?;
/// // The value that later steps need of this one: the clean sample.
/// assert_eq!((state.step, state.history.len()), (1, 1));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DpmSolverMultistep {
    config: DpmSolverMultistepConfig,
    alphas_cumprod: Vec<f32>,
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
}

/// A noise level: the factors of image and noise of variance 1, and the logarithm of their ratio.
#[derive(Clone, Copy, Debug)]
struct Level {
    alpha: f32,
    sigma: f32,
    lambda: f32,
}

impl Level {
    fn of(sigma: f32) -> Self {
        let alpha = 1.0 / f32_math::sqrt(sigma * sigma + 1.0);
        let sigma = sigma * alpha;
        Self {
            alpha,
            sigma,
            lambda: alpha.ln() - sigma.ln(),
        }
    }
}

impl DpmSolverMultistep {
    /// Creates a scheduler without steps. Call [`Scheduler::set_timesteps`] next.
    #[must_use]
    pub fn new(config: DpmSolverMultistepConfig) -> Self {
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

    /// Returns the timesteps in use, those whose signal is not too weak.
    fn last_timestep(&self) -> usize {
        let count = self.config.schedule.num_train_timesteps;
        let Some(least) = self.config.lambda_min_clipped else {
            return count;
        };
        let lambda = |alpha: &f32| f32_math::sqrt(*alpha).ln() - f32_math::sqrt(1.0 - alpha).ln();
        let rising = self.alphas_cumprod.iter().rev().map(lambda);
        let clipped = rising.take_while(|lambda| *lambda < least as f32).count();
        count - clipped.min(count)
    }

    /// Returns the order of a step, if `before` earlier steps are remembered.
    fn order(&self, step: usize, before: usize) -> usize {
        let (config, count) = (&self.config, self.timesteps.len());
        let short = config.lower_order_final && count < SHORT;
        let zero = config.final_sigmas_type == FinalSigma::Zero;
        let first = step + 1 == count && (config.euler_at_final || short || zero);
        let second = step + 2 == count && short;
        let most = match (first, second) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 3,
        };
        config.solver_order.min(most).min(before + 1)
    }
}

/// Keeps some of the image at the last timestep, so that its noise level is finite: the smallest f16 number.
pub(super) fn keep_some_signal(alphas_cumprod: &mut [f32]) {
    if let Some(last) = alphas_cumprod.last_mut() {
        *last = 2.0_f32.powi(-24);
    }
}

impl Scheduler for DpmSolverMultistep {
    fn set_timesteps(&mut self, request: &TimestepRequest<'_>) -> Result<()> {
        let steps = steps_alone(request)?;
        let schedule = &self.config.schedule;
        check_steps(schedule, steps)?;
        let all = all_sigmas(&self.alphas_cumprod);
        let logs = logarithms(&all);
        let ends = match all.as_slice() {
            [min, .., max] | [min @ max] => (f64::from(*max), f64::from(*min)),
            [] => return Err(too_many(steps, "its training schedule is empty")),
        };
        let timestep = |sigma: &f64| timestep_of(*sigma, &logs);
        let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = match self.config.spacing {
            None => {
                let timesteps = whole(schedule, spaced(schedule, steps, self.last_timestep(), 1));
                let sigmas = timesteps.iter().map(|t| interpolate(*t as f64, &all));
                (
                    timesteps.iter().map(|t| *t as f64).collect(),
                    sigmas.collect(),
                )
            }
            Some(spacing) => {
                let sigmas = spacing::levels(spacing, ends, steps);
                let near = matches!(spacing, SigmaSpacing::Karras | SigmaSpacing::Lu)
                    && schedule.betas != super::Betas::SquaredCosine;
                let timesteps = sigmas.iter().map(timestep);
                let timesteps = timesteps.map(|t| if near { t.round_ties_even() } else { t });
                (timesteps.collect(), sigmas)
            }
        };
        sigmas.push(match self.config.final_sigmas_type {
            FinalSigma::SigmaMin => ends.1,
            FinalSigma::Zero => 0.0,
        });
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        if timesteps.len() != steps || !sigmas.windows(2).all(|two| two[0] > two[1]) {
            let found = format!("{steps} do not have a falling noise level each");
            return Err(too_many(steps, &found));
        }
        // diffusers cuts fractions off here.
        self.timesteps = timesteps.into_iter().map(|t| t.trunc() as f32).collect();
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
        self.config.stochastic
    }

    fn history_len(&self, finished: usize) -> usize {
        finished.min(self.config.solver_order.saturating_sub(1))
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
        let step = state.step;
        if step >= self.timesteps.len() {
            return Err(no_step(step, self.timesteps.len()));
        }
        if let Some(before) = state.history.iter().find(|x| x.shape() != sample.shape()) {
            let allowed = format!(
                "of the shape of the steps before, {}",
                quote::list(before.shape())
            );
            return Err(Error::invalid(
                "sample",
                quote::list(sample.shape()),
                allowed,
            ));
        }
        let noise = match self.config.stochastic {
            true => {
                let noise = noise.ok_or_else(|| {
                    Error::invalid("noise", "nothing", "given: sde-dpmsolver++ adds noise")
                })?;
                Some(of_shape("noise", noise, &sample)?)
            }
            false => None,
        };
        let level = |step: usize| Level::of(self.sigmas[step]);
        let (now, next) = (level(step), level(step + 1));
        let predicted = self.config.schedule.prediction_type;
        let clean = predicted.clean(&sample, &output, now.alpha, now.sigma)?;
        let order = self.order(step, state.history.len());
        let weights = UpdateWeights::new(&self.config, now, next, order);
        let gaps = Gaps::new(now, next, (1..order).map(|back| level(step - back)));
        let before = |back: usize| &state.history[state.history.len() - back];
        let mut next = weighted_sum(&sample, weights.sample, &clean, weights.clean)?;
        match order {
            1 => {}
            2 => next = add_scaled(&next, &gaps.first(&clean, before(1))?, weights.first)?,
            _ => {
                let [first, second] = gaps.both(&clean, before(1), before(2))?;
                next = add_scaled(&next, &first, weights.first)?;
                next = add_scaled(&next, &second, weights.second)?;
            }
        }
        if let Some(noise) = noise {
            next = add_scaled(&next, &noise, weights.noise)?;
        }
        state.step += 1;
        state.history.push(clean);
        if state.history.len() >= self.config.solver_order {
            state.history.remove(0);
        }
        Ok(next)
    }
}

/// The weights of an update.
#[derive(Clone, Copy, Debug)]
struct UpdateWeights {
    sample: f32,
    clean: f32,
    /// The weights of the clean sample's derivatives.
    first: f32,
    second: f32,
    noise: f32,
}

impl UpdateWeights {
    fn new(config: &DpmSolverMultistepConfig, now: Level, next: Level, order: usize) -> Self {
        let h = next.lambda - now.lambda;
        let shrink = next.sigma / now.sigma;
        let span = if config.stochastic { 2.0 * h } else { h };
        let left = (-span).exp();
        let clean = next.alpha * (1.0 - left);
        // diffusers' stochastic update of third order has this half with the other sign.
        let half = if config.stochastic { -0.5 } else { 0.5 };
        Self {
            sample: match config.stochastic {
                true => shrink * (-h).exp(),
                false => shrink,
            },
            clean,
            first: match (order, config.solver_type) {
                (2, SolverType::Midpoint) => 0.5 * clean,
                _ => next.alpha * ((left - 1.0) / span + 1.0),
            },
            second: next.alpha * ((1.0 - left - span) / (span * span) + half),
            noise: next.sigma * (1.0 - left).sqrt(),
        }
    }
}

/// The distances of the steps before this one in units of this step, as logarithms of signal to noise.
#[derive(Clone, Copy, Debug)]
struct Gaps {
    last: f32,
    before: f32,
}

impl Gaps {
    /// `earlier` are the levels of the steps before, newest first.
    fn new(now: Level, next: Level, mut earlier: impl Iterator<Item = Level>) -> Self {
        let h = next.lambda - now.lambda;
        let last = earlier.next().unwrap_or(now);
        let before = earlier.next().unwrap_or(last);
        Self {
            last: (now.lambda - last.lambda) / h,
            before: (last.lambda - before.lambda) / h,
        }
    }

    /// Returns the clean sample's first derivative from two estimates, newest first.
    fn first(self, m0: &Tensor, m1: &Tensor) -> Result<Tensor> {
        Ok(scale(&sub(m0, m1)?, 1.0 / self.last)?)
    }

    /// Returns its first and second derivative from three estimates.
    fn both(self, m0: &Tensor, m1: &Tensor, m2: &Tensor) -> Result<[Tensor; 2]> {
        let late = self.first(m0, m1)?;
        let early = scale(&sub(m1, m2)?, 1.0 / self.before)?;
        let turned = sub(&late, &early)?;
        let sum = self.last + self.before;
        Ok([
            add_scaled(&late, &turned, self.last / sum)?,
            scale(&turned, 1.0 / sum)?,
        ])
    }
}
