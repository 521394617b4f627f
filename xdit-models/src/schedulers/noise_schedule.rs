//! The common part of diffusion schedulers: the noise schedule of the training, and the meaning of predictions (diffusers
//! `schedulers/scheduling_ddpm.py`; the others repeat it).

use xdit_kernels::Tensor;
use xdit_kernels::elementwise::{add_scaled, divide, weighted_sum};

use crate::error::{Error, Result};
use crate::files::config::ConfigFile;

/// The variance that each training step adds.
#[derive(Clone, Debug, PartialEq)]
pub enum Betas {
    /// Evenly spaced from `beta_start` to `beta_end`.
    Linear([f64; 2]),
    /// Squares of evenly spaced numbers, from the root of `beta_start` to the root of `beta_end`. Latent diffusion uses it.
    ScaledLinear([f64; 2]),
    /// The variance of the signal is a squared cosine (Nichol and Dhariwal 2021).
    SquaredCosine,
    /// A list of values.
    Trained(Vec<f64>),
}

/// The meaning of a model's output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PredictionType {
    /// The noise in the sample.
    Epsilon,
    /// The sample without noise.
    Sample,
    /// The velocity: noise and clean sample rotated by a quarter turn (Salimans and Ho 2022).
    VPrediction,
}

/// How the steps of a run are distributed over those of the training (Lin et al. 2023, table 2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimestepSpacing {
    /// Evenly spaced, with both ends.
    Linspace,
    /// The first step of each stride.
    Leading,
    /// The last step of each stride.
    Trailing,
}

/// The noise schedule of a diffusion model's training, and the meaning of the model's output.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// The number of training steps. Timesteps are counted from 0.
    pub num_train_timesteps: usize,
    /// The variance that each training step adds.
    pub betas: Betas,
    /// Whether nothing of the image is left at the last step (Lin et al. 2023).
    pub rescale_betas_zero_snr: bool,
    /// The meaning of the model's output.
    pub prediction_type: PredictionType,
    /// How the steps of a run are distributed over those of the training.
    pub timestep_spacing: TimestepSpacing,
    /// The offset of [`TimestepSpacing::Leading`] timesteps.
    pub steps_offset: usize,
}

impl NoiseSchedule {
    /// The defaults of diffusers' classes, which differ only in the spacing.
    #[must_use]
    pub fn new(timestep_spacing: TimestepSpacing) -> Self {
        Self {
            num_train_timesteps: 1000,
            betas: Betas::Linear([1e-4, 0.02]),
            rescale_betas_zero_snr: false,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing,
            steps_offset: 0,
        }
    }

    /// Reads the schedule in `config`, with diffusers' defaults for absent fields.
    pub(super) fn read(config: &ConfigFile, spacing: TimestepSpacing) -> Result<Self> {
        let default = Self::new(spacing);
        let num_train_timesteps = config.count(
            "num_train_timesteps",
            Some(default.num_train_timesteps),
            1..=1_000_000,
        )?;
        let read = Self {
            num_train_timesteps,
            betas: betas(config, num_train_timesteps)?,
            rescale_betas_zero_snr: config.flag("rescale_betas_zero_snr", false)?,
            prediction_type: config.choice(
                "prediction_type",
                "epsilon",
                &[
                    ("epsilon", PredictionType::Epsilon),
                    ("sample", PredictionType::Sample),
                    ("v_prediction", PredictionType::VPrediction),
                ],
            )?,
            timestep_spacing: match config.value("timestep_spacing") {
                None => spacing,
                Some(_) => config.choice(
                    "timestep_spacing",
                    "",
                    &[
                        ("linspace", TimestepSpacing::Linspace),
                        ("leading", TimestepSpacing::Leading),
                        ("trailing", TimestepSpacing::Trailing),
                    ],
                )?,
            },
            steps_offset: config.count("steps_offset", Some(0), 0..=num_train_timesteps)?,
        };
        let alphas = read.alphas_cumprod();
        let usual = alphas.len() - usize::from(read.rescale_betas_zero_snr);
        let between = |alpha: &f32| *alpha > 0.0 && *alpha < 1.0;
        if usual == 0 || !alphas[..usual].iter().all(between) {
            let field = match read.betas {
                Betas::Trained(_) => "trained_betas",
                _ => "beta_end",
            };
            let expected =
                "such that some noise and some of the picture is there at every timestep";
            return Err(config.bad(field, expected));
        }
        Ok(read)
    }

    /// Returns the share of the image's variance at each timestep, as torch computes it in f32.
    pub(super) fn alphas_cumprod(&self) -> Vec<f32> {
        let count = self.num_train_timesteps;
        let betas: Vec<f32> = match &self.betas {
            Betas::Linear([start, end]) => linspace_f32(*start, *end, count),
            Betas::ScaledLinear([start, end]) => linspace_f32(start.sqrt(), end.sqrt(), count)
                .into_iter()
                .map(|root| root * root)
                .collect(),
            Betas::SquaredCosine => squared_cosine(count),
            Betas::Trained(betas) => betas.iter().map(|beta| *beta as f32).collect(),
        };
        let alphas: Vec<f32> = betas.iter().map(|beta| 1.0 - beta).collect();
        match self.rescale_betas_zero_snr {
            true => cumprod(&zero_terminal_snr(&cumprod(&alphas))),
            false => cumprod(&alphas),
        }
    }
}

impl PredictionType {
    /// The sample without noise, f32, where `signal` and `noise` are the parts of both in `sample`:
    ///
    /// ```text
    /// (sample − noise · output) / signal        output        signal · sample − noise · output
    /// ```
    pub(super) fn clean(
        self,
        sample: &Tensor,
        output: &Tensor,
        signal: f32,
        noise: f32,
    ) -> Result<Tensor> {
        Ok(match self {
            Self::Epsilon => divide(&add_scaled(sample, output, -noise)?, signal)?,
            Self::Sample => output.clone(),
            Self::VPrediction => weighted_sum(sample, signal, output, -noise)?,
        })
    }
}

/// Returns an error if a scheduler's file requests an option that is not supported.
pub(super) fn refuse_flags(config: &ConfigFile, fields: &[&str]) -> Result<()> {
    for field in fields {
        if config.value(field).is_some() && config.flag(field, false)? {
            return Err(config.bad(field, "false: this option is not supported"));
        }
    }
    Ok(())
}

/// Warns of fields that no scheduler here reads, if the file is of this class. A scheduler that is made from another class's
/// file ignores the fields of that class.
pub(super) fn warn_of_unknown(config: &ConfigFile, class: &str, fields: &[&[&str]]) {
    if config
        .value("_class_name")
        .is_some_and(|name| name != class)
    {
        return;
    }
    for field in config.fields() {
        if !field.starts_with('_') && !fields.iter().any(|list| list.contains(&field)) {
            tracing::warn!(
                file = config.file(),
                field,
                "unknown scheduler option is ignored"
            );
        }
    }
}

/// Returns an error if the request has more steps than the schedule.
pub(super) fn check_steps(schedule: &NoiseSchedule, steps: usize) -> Result<()> {
    let most = schedule.num_train_timesteps;
    if steps <= most {
        return Ok(());
    }
    let allowed = format!("at most {most}: the scheduler's num_train_timesteps");
    Err(Error::invalid("num_inference_steps", steps, allowed))
}

/// The fields that [`NoiseSchedule::read`] reads.
pub(super) const FIELDS: &[&str] = &[
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
];

fn betas(config: &ConfigFile, count: usize) -> Result<Betas> {
    if let Some(betas) = config.optional_numbers("trained_betas", count)? {
        let fit = |beta: &f64| (0.0..1.0).contains(beta);
        if betas.len() != count || !betas.iter().all(fit) {
            let expected = format!("{count} numbers from 0 to 1, one for each training timestep");
            return Err(config.bad("trained_betas", expected));
        }
        return Ok(Betas::Trained(betas));
    }
    let ends = [
        config.number("beta_start", 1e-4, 1e-9..=0.999)?,
        config.number("beta_end", 0.02, 1e-9..=0.999)?,
    ];
    config.choice(
        "beta_schedule",
        "linear",
        &[
            ("linear", Betas::Linear(ends)),
            ("scaled_linear", Betas::ScaledLinear(ends)),
            ("squaredcos_cap_v2", Betas::SquaredCosine),
        ],
    )
}

/// `count` numbers from `start` to `stop`, as `torch.linspace` in f32: from both ends, product and sum rounded once.
pub(super) fn linspace_f32(start: f64, stop: f64, count: usize) -> Vec<f32> {
    let (start, stop) = (start as f32, stop as f32);
    if count == 1 {
        return vec![start];
    }
    let step = (stop - start) / (count.saturating_sub(1)) as f32;
    (0..count)
        .map(|i| match i < count / 2 {
            true => step.mul_add(i as f32, start),
            false => (-step).mul_add((count - i - 1) as f32, stop),
        })
        .collect()
}

/// Running products, in f64 like torch on the CPU.
fn cumprod(factors: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    let next = |factor: &f32| {
        product *= f64::from(*factor);
        product as f32
    };
    factors.iter().map(next).collect()
}

/// Returns the factors of `alphas_cumprod` after its roots were stretched to end at 0.
fn zero_terminal_snr(alphas_cumprod: &[f32]) -> Vec<f32> {
    let mut roots: Vec<f32> = alphas_cumprod
        .iter()
        .map(|alpha| super::f32_math::sqrt(*alpha))
        .collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return roots;
    };
    let scale = first / (first - last);
    for root in &mut roots {
        *root = (*root - last) * scale;
    }
    let bars: Vec<f32> = roots.iter().map(|root| root * root).collect();
    let before = std::iter::once(1.0).chain(bars.iter().copied());
    // The conversion to 1 - beta and back rounds, as in torch.
    let betas = bars
        .iter()
        .zip(before)
        .map(|(bar, before)| 1.0 - bar / before);
    betas.map(|beta| 1.0 - beta).collect()
}

fn squared_cosine(count: usize) -> Vec<f32> {
    const MAX_BETA: f64 = 0.999;
    let bar = |t: f64| {
        ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0)
            .cos()
            .powi(2)
    };
    (0..count)
        .map(|i| {
            let (t1, t2) = (i as f64 / count as f64, (i + 1) as f64 / count as f64);
            (1.0 - bar(t2) / bar(t1)).min(MAX_BETA) as f32
        })
        .collect()
}
