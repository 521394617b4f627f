//! Ways to space noise levels between two ends, in the arithmetic of NumPy.

use std::ops::{Add, Div, Mul, Sub};

use super::beta::quantile;
use super::f32_math;
use crate::error::Result;
use crate::files::config::ConfigFile;

/// A schedule to which the noise levels are converted. Only their ends are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigmaSpacing {
    /// Equal steps of the seventh root (Karras et al. 2022).
    Karras,
    /// Equal steps of the logarithm.
    Exponential,
    /// The same, from the logarithms of the ends in f32 (Lu et al. 2022). Only for DPM-Solver++, whose model receives the
    /// nearest whole timesteps.
    Lu,
    /// Quantiles of a beta distribution (Lee et al. 2024).
    Beta,
}

/// f32 or f64: diffusers computes given noise levels in one and its own in the other.
pub(super) trait Real:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// `value` in this precision.
    fn of(value: f64) -> Self;

    /// Returns this number in f64.
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}

/// `count` numbers from `start` to `stop`, as `numpy.linspace`.
pub(crate) fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let gaps = count.saturating_sub(1) as f64;
    let step = (stop - start) / gaps;
    let mut values: Vec<f64> = (0..count)
        .map(|i| match (i, step == 0.0) {
            (0, _) => start,
            (_, true) => i as f64 / gaps * (stop - start) + start,
            (_, false) => i as f64 * step + start,
        })
        .collect();
    if let [_, .., last] = values.as_mut_slice() {
        *last = stop;
    }
    values
}

/// Returns the spacing that a scheduler's file requests. It must request one at most, of those that all schedulers support.
pub(super) fn sigma_spacing(config: &ConfigFile) -> Result<Option<SigmaSpacing>> {
    let mut chosen = None;
    for (field, spacing) in [
        ("use_karras_sigmas", SigmaSpacing::Karras),
        ("use_exponential_sigmas", SigmaSpacing::Exponential),
        ("use_beta_sigmas", SigmaSpacing::Beta),
    ] {
        if config.value(field).is_some() && config.flag(field, false)? {
            if chosen.is_some() {
                return Err(config.bad(field, "false when another spacing of the sigmas is on"));
            }
            chosen = Some(spacing);
        }
    }
    Ok(chosen)
}

/// Stretches the levels so that the last one is `terminal` (diffusers' `stretch_shift_to_terminal`).
pub(super) fn stretch_to_terminal<R: Real>(sigmas: &mut [R], terminal: f64) {
    let Some(last) = sigmas.last().copied() else {
        return;
    };
    let one = R::of(1.0);
    let scale = (one - last) / R::of(1.0 - terminal);
    for sigma in sigmas {
        *sigma = one - (one - *sigma) / scale;
    }
}

/// `count` noise levels between these ends, from high to low.
pub(super) fn levels(spacing: SigmaSpacing, ends: (f64, f64), count: usize) -> Vec<f64> {
    let (max, min) = ends;
    let exp = |logs: Vec<f64>| logs.into_iter().map(f64::exp).collect();
    let ramp = || linspace(0.0, 1.0, count).into_iter();
    match spacing {
        SigmaSpacing::Karras => {
            const RHO: f64 = 7.0;
            let (low, high) = (min.powf(1.0 / RHO), max.powf(1.0 / RHO));
            ramp()
                .map(|ramp| (high + ramp * (low - high)).powf(RHO))
                .collect()
        }
        SigmaSpacing::Lu => {
            let log = |sigma: f64| f64::from(f32_math::ln(sigma as f32));
            let (low, high) = (log(min), log(max));
            exp(ramp().map(|ramp| high + ramp * (low - high)).collect())
        }
        SigmaSpacing::Exponential => exp(linspace(max.ln(), min.ln(), count)),
        SigmaSpacing::Beta => ramp()
            .map(|ramp| min + quantile(1.0 - ramp) * (max - min))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linspace_is_numpys() {
        assert_eq!(linspace(1.0, 0.25, 4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(linspace(3.0, 9.0, 1), [3.0]);
        assert_eq!(linspace(2.0, 2.0, 3), [2.0, 2.0, 2.0]);
        assert!(linspace(0.0, 1.0, 0).is_empty());
        // numpy.linspace(0, 1, 11)[3] is 0.30000000000000004.
        assert_eq!(linspace(0.0, 1.0, 11)[3], 0.300_000_000_000_000_04);
    }
}
