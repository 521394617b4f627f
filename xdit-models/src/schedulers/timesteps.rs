//! The training steps of a run, and the noise levels between them, in the arithmetic of NumPy.

use super::noise_schedule::{NoiseSchedule, TimestepSpacing};
use super::spacing::linspace;
use super::{MAX_INFERENCE_STEPS, TimestepRequest, f32_math};
use crate::error::{Error, Result};

/// Timesteps from high to low, before they are rounded.
///
/// `last` is the number of training timesteps in use; `gaps` is what `linspace` and `leading` divide them into: as many as
/// there are steps, or one more, whose last is left out.
pub(super) fn spaced(
    schedule: &NoiseSchedule,
    steps: usize,
    last: usize,
    extra: usize,
) -> Vec<f64> {
    let count = steps + extra;
    let mut timesteps: Vec<f64> = match schedule.timestep_spacing {
        TimestepSpacing::Linspace => linspace(0.0, last.saturating_sub(1) as f64, count),
        TimestepSpacing::Leading => (0..count).map(|i| (i * (last / count)) as f64).collect(),
        TimestepSpacing::Trailing => {
            let start = last as f64;
            let ratio = schedule.num_train_timesteps as f64 / steps as f64;
            // `numpy.arange` computes its stride from its first two numbers. If rounding adds a number, the timestep -1, it is
            // left out.
            let step = (start - ratio) - start;
            let values = (0..steps).map(|i| start + i as f64 * step);
            return values
                .take_while(|t| *t > 0.0)
                .map(|t| t.round_ties_even() - 1.0)
                .collect();
        }
    };
    timesteps.reverse();
    timesteps.truncate(steps);
    timesteps
}

/// `timesteps` as whole numbers, with the offset of those that lead.
pub(super) fn whole(schedule: &NoiseSchedule, timesteps: Vec<f64>) -> Vec<usize> {
    let offset = match schedule.timestep_spacing {
        TimestepSpacing::Leading => schedule.steps_offset,
        _ => 0,
    };
    timesteps
        .into_iter()
        .map(|t| t.round_ties_even() as usize + offset)
        .collect()
}

/// How many steps a request wants of a scheduler that takes no lists.
pub(super) fn steps_alone(request: &TimestepRequest<'_>) -> Result<usize> {
    for (argument, list) in [("sigmas", request.sigmas), ("timesteps", request.timesteps)] {
        if list.is_some() {
            let reason = "this scheduler takes `num_inference_steps` alone";
            return Err(Error::left_out(argument, reason));
        }
    }
    match request.num_inference_steps {
        Some(steps) if (1..=MAX_INFERENCE_STEPS).contains(&steps) => Ok(steps),
        other => Err(Error::invalid(
            "num_inference_steps",
            other.map_or("nothing".into(), |steps| steps.to_string()),
            format!("from 1 to {MAX_INFERENCE_STEPS}"),
        )),
    }
}

/// The noise levels of all timesteps, relative to the picture's: rising.
pub(super) fn all_sigmas(alphas_cumprod: &[f32]) -> Vec<f32> {
    let sigma = |alpha: &f32| f32_math::sqrt((1.0 - alpha) / alpha);
    alphas_cumprod.iter().map(sigma).collect()
}

/// Their logarithms.
pub(super) fn logarithms(sigmas: &[f32]) -> Vec<f32> {
    sigmas.iter().map(|sigma| f32_math::ln(*sigma)).collect()
}

/// `values` between whole places and at them, as `numpy.interp`; beyond the ends the ends.
pub(super) fn interpolate(at: f64, values: &[f32]) -> f64 {
    let value = |i: usize| {
        values
            .get(i)
            .or(values.last())
            .map_or(0.0, |v| f64::from(*v))
    };
    let at = at.max(0.0);
    let below = at.floor();
    let i = below as usize;
    match below == at || i + 1 >= values.len() {
        true => value(i),
        false => (value(i + 1) - value(i)) * (at - below) + value(i),
    }
}

/// The timestep, with a fraction, whose noise level is `sigma` (diffusers' `_sigma_to_t`). `log_sigmas` rise, but for the last of a
/// schedule that ends in noise alone: the last that is reached counts.
pub(super) fn timestep_of(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let reached = log_sigmas
        .iter()
        .rposition(|log| f64::from(*log) <= log_sigma);
    let low = reached.unwrap_or(0).min(log_sigmas.len().saturating_sub(2));
    let at = |i: usize| log_sigmas.get(i).copied().unwrap_or_default();
    let weight = (f64::from(at(low)) - log_sigma) / f64::from(at(low) - at(low + 1));
    let weight = weight.clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}

/// An error for more steps than the schedule can be divided into.
pub(super) fn too_many(steps: usize, why: &str) -> Error {
    let allowed = format!("fewer for this scheduler: {why}");
    Error::invalid("num_inference_steps", steps, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_steps_are_as_many_as_asked_for() {
        let schedule = NoiseSchedule::new(TimestepSpacing::Trailing);
        for steps in 1..=1000 {
            let timesteps = whole(&schedule, spaced(&schedule, steps, 1000, 0));
            assert_eq!(timesteps.len(), steps);
            assert_eq!(timesteps[0], 999);
            assert!(timesteps.windows(2).all(|two| two[0] > two[1]), "{steps}");
        }
    }

    #[test]
    fn interpolation_is_numpys() {
        let values = [1.0, 2.0, 4.0];
        // numpy.interp([-1, 0, 0.25, 1.5, 2, 9], [0, 1, 2], [1, 2, 4]).
        let expected = [1.0, 1.0, 1.25, 3.0, 4.0, 4.0];
        for (at, expected) in [-1.0, 0.0, 0.25, 1.5, 2.0, 9.0].into_iter().zip(expected) {
            assert_eq!(interpolate(at, &values), expected, "{at}");
        }
    }

    #[test]
    fn timesteps_of_noise_levels_are_found_again() {
        let logs = [-2.0, -1.0, 0.5, 1.5];
        for (log, expected) in [
            (-3.0_f64, 0.0),
            (-2.0, 0.0),
            (-1.5, 0.5),
            (0.5, 2.0),
            (1.0, 2.5),
            (2.0, 3.0),
        ] {
            // exp and ln come back to within a unit in the last place.
            let difference = (timestep_of(log.exp(), &logs) - expected).abs();
            assert!(difference <= 1e-15 * 4.0, "{log}: {difference}");
        }
    }
}
