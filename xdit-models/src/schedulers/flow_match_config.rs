//! Configuration of diffusers' `FlowMatchEulerDiscreteScheduler`
//! (diffusers `schedulers/scheduling_flow_match_euler_discrete.py`).

use super::noise_schedule::warn_of_unknown;
use super::spacing::{SigmaSpacing, sigma_spacing};
use crate::error::Result;
use crate::files::config::ConfigFile;

/// How the noise levels shift with the length of the image sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeShift {
    /// `e^mu / (e^mu + (1/t - 1))`.
    Exponential,
    /// `mu / (mu + (1/t - 1))`.
    Linear,
}

/// The options of a flow-matching Euler scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowMatchEulerConfig {
    /// The number of training steps. Timesteps run down from it.
    pub num_train_timesteps: usize,
    /// The shift of the noise levels, if it is not dynamic.
    pub shift: f64,
    /// Whether the shift follows the image's size.
    pub use_dynamic_shifting: bool,
    /// `mu` at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// `mu` at `max_image_seq_len` tokens.
    pub max_shift: f64,
    /// Tokens at which `mu` is `base_shift`.
    pub base_image_seq_len: usize,
    /// Tokens at which `mu` is `max_shift`.
    pub max_image_seq_len: usize,
    /// Whether noise levels rise instead of fall.
    pub invert_sigmas: bool,
    /// The noise level to which the last step is stretched.
    pub shift_terminal: Option<f64>,
    /// Another spacing of the noise levels.
    pub spacing: Option<SigmaSpacing>,
    /// Overrides the lowest noise level of `spacing`.
    pub sigma_min: Option<f64>,
    /// Overrides the highest noise level of `spacing`.
    pub sigma_max: Option<f64>,
    /// The formula of the dynamic shift.
    pub time_shift_type: TimeShift,
    /// Whether each step draws fresh noise.
    pub stochastic_sampling: bool,
}

impl Default for FlowMatchEulerConfig {
    /// The defaults of the Python class.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            invert_sigmas: false,
            shift_terminal: None,
            spacing: None,
            sigma_min: None,
            sigma_max: None,
            time_shift_type: TimeShift::Exponential,
            stochastic_sampling: false,
        }
    }
}

impl FlowMatchEulerConfig {
    /// Reads the configuration in `config`, with diffusers' defaults for absent fields.
    ///
    /// Fields that diffusers does not know are ignored with a warning in the log, as in diffusers.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for an unknown `time_shift_type`;
    /// [`Error::BadConfig`](crate::Error::BadConfig) for values out of range and for options that exclude each other.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        warn_of_unknown(config, "FlowMatchEulerDiscreteScheduler", &[FIELDS]);
        let default = Self::default();
        let seq_len = |field, default| config.count(field, Some(default), 1..=1 << 30);
        let parsed = Self {
            num_train_timesteps: config.count("num_train_timesteps", Some(1000), 1..=1_000_000)?,
            shift: config.number("shift", default.shift, 1e-6..=1e6)?,
            use_dynamic_shifting: config.flag("use_dynamic_shifting", false)?,
            base_shift: config.number("base_shift", default.base_shift, -100.0..=100.0)?,
            max_shift: config.number("max_shift", default.max_shift, -100.0..=100.0)?,
            base_image_seq_len: seq_len("base_image_seq_len", default.base_image_seq_len)?,
            max_image_seq_len: seq_len("max_image_seq_len", default.max_image_seq_len)?,
            invert_sigmas: config.flag("invert_sigmas", false)?,
            // Python tests `if shift_terminal:`, so 0 switches it off.
            shift_terminal: config
                .optional_number("shift_terminal", 0.0..=0.999_999)?
                .filter(|t| *t != 0.0),
            spacing: sigma_spacing(config)?,
            sigma_min: config.optional_number("sigma_min", 1e-12..=1e6)?,
            sigma_max: config.optional_number("sigma_max", 1e-12..=1e6)?,
            time_shift_type: config.choice(
                "time_shift_type",
                "exponential",
                &[
                    ("exponential", TimeShift::Exponential),
                    ("linear", TimeShift::Linear),
                ],
            )?,
            stochastic_sampling: config.flag("stochastic_sampling", false)?,
        };
        if parsed.use_dynamic_shifting && parsed.base_image_seq_len == parsed.max_image_seq_len {
            return Err(config.bad("max_image_seq_len", "different from base_image_seq_len"));
        }
        Ok(parsed)
    }

    /// `mu`, the dynamic shift for an image of `image_seq_len` tokens: a line through the two configured points
    /// (diffusers `pipelines/flux/pipeline_flux.py`, `calculate_shift`).
    #[must_use]
    pub fn dynamic_shift(&self, image_seq_len: usize) -> f64 {
        let (x0, x1) = (
            self.base_image_seq_len as f64,
            self.max_image_seq_len as f64,
        );
        let slope = (self.max_shift - self.base_shift) / (x1 - x0);
        let offset = self.base_shift - slope * x0;
        image_seq_len as f64 * slope + offset
    }
}

const FIELDS: &[&str] = &[
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "sigma_min",
    "sigma_max",
    "time_shift_type",
    "stochastic_sampling",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<FlowMatchEulerConfig> {
        FlowMatchEulerConfig::read(&ConfigFile::parse(
            "scheduler/scheduler_config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn flux_dev_as_on_the_hub() {
        let config = read(
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0.dev0",
            "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
            "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": true}"#,
        )
        .unwrap();
        assert!(config.use_dynamic_shifting);
        assert_eq!(config.dynamic_shift(256), 0.5);
        // The line's two ends come back to within rounding of f64.
        assert!((config.dynamic_shift(4096) - 1.15).abs() <= 1e-12);
    }

    #[test]
    fn contradictions_and_unknown_values_name_their_field() {
        for (json, field) in [
            (
                r#"{"use_karras_sigmas": true, "use_beta_sigmas": true}"#,
                "use_beta_sigmas",
            ),
            (r#"{"time_shift_type": "cosine"}"#, "time_shift_type"),
            (r#"{"shift": 0}"#, "shift"),
            (r#"{"shift": "3"}"#, "shift"),
            (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps"),
            (r#"{"shift_terminal": 1.0}"#, "shift_terminal"),
            (
                r#"{"use_dynamic_shifting": true, "base_image_seq_len": 4096}"#,
                "max_image_seq_len",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("scheduler_config.json: `{field}`")),
                "{json}: {error}"
            );
        }
        assert_eq!(
            read(r#"{"shift_terminal": 0, "made_up": 3}"#).unwrap(),
            FlowMatchEulerConfig::default()
        );
    }
}
