//! Which scheduler: that of a pipeline's file, or another made from it.

use super::{
    Ddim, DdimConfig, Ddpm, DdpmConfig, DpmSolverMultistep, DpmSolverMultistepConfig, Euler,
    EulerConfig, FlowMatchEuler, FlowMatchEulerConfig, Scheduler,
};
use crate::error::{Error, Result};
use crate::files::config::ConfigFile;

/// The options of a scheduler of any supported class.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SchedulerConfig {
    /// `FlowMatchEulerDiscreteScheduler`.
    FlowMatchEuler(FlowMatchEulerConfig),
    /// `DDPMScheduler`.
    Ddpm(DdpmConfig),
    /// `DDIMScheduler`.
    Ddim(DdimConfig),
    /// `DPMSolverMultistepScheduler`.
    DpmSolverMultistep(DpmSolverMultistepConfig),
    /// `EulerDiscreteScheduler`.
    Euler(EulerConfig),
}

const FLOW_MATCH_EULER: &str = "FlowMatchEulerDiscreteScheduler";

impl SchedulerConfig {
    /// diffusers' classes for models of diffusion, which can be made from each other's files.
    pub const DIFFUSION: &'static [&'static str] = &[
        "DDPMScheduler",
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerDiscreteScheduler",
    ];

    /// diffusers' classes for models of flow matching.
    pub const FLOW_MATCHING: &'static [&'static str] = &[FLOW_MATCH_EULER];

    /// The scheduler in `config`, of the class that it names.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another class, and for options that are not supported; [`Error::BadConfig`] for values out
    /// of range.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::ConfigFile;
    /// use xdit_models::schedulers::SchedulerConfig;
    /// let file = br#"{"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "clip_sample": false}"#;
    /// let file = ConfigFile::parse("scheduler/scheduler_config.json", file)?;
    /// assert_eq!(SchedulerConfig::read(&file)?.class(), "DDPMScheduler");
    /// let other = SchedulerConfig::read_as("EulerDiscreteScheduler", &file)?;
    /// assert_eq!(other.class(), "EulerDiscreteScheduler");
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let known = || Self::DIFFUSION.iter().chain(Self::FLOW_MATCHING).copied();
        let class = config.value("_class_name").and_then(|name| name.as_str());
        match class.filter(|class| known().any(|name| name == *class)) {
            Some(class) => Self::read_as(class, config),
            None => Err(config.unsupported("_class_name", known())),
        }
    }

    /// A scheduler of class `class` from the options in `config`, which may be of another (diffusers' `from_config`): fields
    /// that both know are taken over, the others are as the class has them by default.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a class that is not known, with all that are; else as [`read`](Self::read).
    pub fn read_as(class: &str, config: &ConfigFile) -> Result<Self> {
        // Python's own list of fields that only hold their class's default, which is not another's.
        let unset = config.texts("_use_default_values", &[], 0..=1000)?;
        let config = &config.without(&unset);
        match class {
            "DDPMScheduler" => DdpmConfig::read(config).map(Self::Ddpm),
            "DDIMScheduler" => DdimConfig::read(config).map(Self::Ddim),
            "DPMSolverMultistepScheduler" => {
                DpmSolverMultistepConfig::read(config).map(Self::DpmSolverMultistep)
            }
            "EulerDiscreteScheduler" => EulerConfig::read(config).map(Self::Euler),
            FLOW_MATCH_EULER => FlowMatchEulerConfig::read(config).map(Self::FlowMatchEuler),
            _ => {
                let all = Self::DIFFUSION.iter().chain(Self::FLOW_MATCHING);
                Err(unknown(class, all.copied()))
            }
        }
    }

    /// diffusers' name of its class.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::FlowMatchEuler(_) => FLOW_MATCH_EULER,
            Self::Ddpm(_) => "DDPMScheduler",
            Self::Ddim(_) => "DDIMScheduler",
            Self::DpmSolverMultistep(_) => "DPMSolverMultistepScheduler",
            Self::Euler(_) => "EulerDiscreteScheduler",
        }
    }

    /// A scheduler with these options and no steps yet.
    #[must_use]
    pub fn scheduler(&self) -> Box<dyn Scheduler> {
        match self.clone() {
            Self::FlowMatchEuler(config) => Box::new(FlowMatchEuler::new(config)),
            Self::Ddpm(config) => Box::new(Ddpm::new(config)),
            Self::Ddim(config) => Box::new(Ddim::new(config)),
            Self::DpmSolverMultistep(config) => Box::new(DpmSolverMultistep::new(config)),
            Self::Euler(config) => Box::new(Euler::new(config)),
        }
    }
}

/// An error about a scheduler's name.
fn unknown<'a>(class: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known = known.collect::<Vec<_>>().join(", ");
    Error::invalid("scheduler", class, format!("one of {known}"))
}
