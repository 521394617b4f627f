//! Configuration of diffusers' `DPMSolverMultistepScheduler`.

use super::SigmaSpacing;
use super::noise_schedule::{self, NoiseSchedule, PredictionType, TimestepSpacing, refuse_flags};
use super::spacing::sigma_spacing;
use crate::error::Result;
use crate::files::config::ConfigFile;

/// The form of the second-order update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SolverType {
    /// Uses the difference of two predictions directly.
    Midpoint,
    /// Uses the integral of the difference.
    Heun,
}

/// The noise level after the last step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FinalSigma {
    /// No noise.
    Zero,
    /// The noise level of the first timestep of the training.
    SigmaMin,
}

/// The options of [`DpmSolverMultistep`](super::DpmSolverMultistep).
#[derive(Clone, Debug, PartialEq)]
pub struct DpmSolverMultistepConfig {
    /// The training schedule.
    pub schedule: NoiseSchedule,
    /// The number of predictions in an update: 1, 2 or 3.
    pub solver_order: usize,
    /// Whether each step adds fresh noise (`sde-dpmsolver++` instead of `dpmsolver++`).
    pub stochastic: bool,
    /// The form of the second-order update.
    pub solver_type: SolverType,
    /// Whether the last steps of runs with fewer than 15 steps are of lower order.
    pub lower_order_final: bool,
    /// Whether the last step is of first order.
    pub euler_at_final: bool,
    /// Another spacing of the noise levels.
    pub spacing: Option<SigmaSpacing>,
    /// The noise level after the last step.
    pub final_sigmas_type: FinalSigma,
    /// The smallest logarithm of signal to noise. Timesteps below it are left out.
    pub lambda_min_clipped: Option<f64>,
}

impl Default for DpmSolverMultistepConfig {
    /// The defaults of the Python class.
    fn default() -> Self {
        Self {
            schedule: NoiseSchedule::new(TimestepSpacing::Linspace),
            solver_order: 2,
            stochastic: false,
            solver_type: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            spacing: None,
            final_sigmas_type: FinalSigma::Zero,
            lambda_min_clipped: None,
        }
    }
}

impl DpmSolverMultistepConfig {
    /// Reads the options in `config`, which may be of another class, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) and [`Error::BadConfig`](crate::Error::BadConfig) for options that
    /// are not supported or out of range.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        noise_schedule::warn_of_unknown(
            config,
            "DPMSolverMultistepScheduler",
            &[noise_schedule::FIELDS, FIELDS],
        );
        refuse_flags(
            config,
            &["thresholding", "use_flow_sigmas", "use_dynamic_shifting"],
        )?;
        let schedule = NoiseSchedule::read(config, TimestepSpacing::Linspace)?;
        let variance = config.value("variance_type").and_then(|v| v.as_str());
        let learned = variance.is_some_and(|name| name.starts_with("learned"));
        if learned && schedule.prediction_type == PredictionType::Epsilon {
            return Err(config.bad(
                "variance_type",
                "null: predicted variances are not supported",
            ));
        }
        Ok(Self {
            schedule,
            solver_order: config.count("solver_order", Some(2), 1..=3)?,
            stochastic: config.choice(
                "algorithm_type",
                "dpmsolver++",
                &[("dpmsolver++", false), ("sde-dpmsolver++", true)],
            )?,
            // The names of other solvers' types mean midpoint, as in diffusers.
            solver_type: config.choice(
                "solver_type",
                "midpoint",
                &[
                    ("midpoint", SolverType::Midpoint),
                    ("heun", SolverType::Heun),
                    ("logrho", SolverType::Midpoint),
                    ("bh1", SolverType::Midpoint),
                    ("bh2", SolverType::Midpoint),
                ],
            )?,
            lower_order_final: config.flag("lower_order_final", true)?,
            euler_at_final: config.flag("euler_at_final", false)?,
            spacing: match (
                sigma_spacing(config)?,
                config.flag("use_lu_lambdas", false)?,
            ) {
                // In diffusers' order, for files that request two.
                (Some(SigmaSpacing::Karras), _) => Some(SigmaSpacing::Karras),
                (_, true) => Some(SigmaSpacing::Lu),
                (other, false) => other,
            },
            final_sigmas_type: final_sigma(config)?,
            lambda_min_clipped: lambda_min(config)?,
        })
    }
}

/// The fields besides those of the training schedule. Those of flow matching have no effect while it is off.
const FIELDS: &[&str] = &[
    "solver_order",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "algorithm_type",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "flow_shift",
    "final_sigmas_type",
    "lambda_min_clipped",
    "variance_type",
    "use_dynamic_shifting",
    "time_shift_type",
];

/// `final_sigmas_type`, zero if it is absent.
pub(super) fn final_sigma(config: &ConfigFile) -> Result<FinalSigma> {
    config.choice(
        "final_sigmas_type",
        "zero",
        &[
            ("zero", FinalSigma::Zero),
            ("sigma_min", FinalSigma::SigmaMin),
        ],
    )
}

/// Python writes the default as `-Infinity`, which is read as a string.
fn lambda_min(config: &ConfigFile) -> Result<Option<f64>> {
    match config.value("lambda_min_clipped") {
        Some(value) if value == "-Infinity" => Ok(None),
        _ => config.optional_number("lambda_min_clipped", -1e6..=1e6),
    }
}
