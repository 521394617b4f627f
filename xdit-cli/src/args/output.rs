//! The flags that say where results go, and what is reported.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use serde::Serialize;

/// Where the results go.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// A file, a folder, or - for standard output.
    ///
    /// A folder exists, or has / at the end of its name. Standard output takes one file. Several images are numbered _000, _001
    /// and so on. An existing file of that name is replaced [default: xdit-SEED.png, or the next free name].
    #[arg(long, short, value_name = "FILE|FOLDER", value_hint = ValueHint::AnyPath)]
    #[serde(skip)]
    pub output: Option<PathBuf>,
    /// png, or a .safetensors file: latent holds `latents` as diffusers' output_type="latent", float holds `image`
    /// (B, 3, H, W), f32 from 0 to 1.
    #[arg(
        long,
        value_enum,
        default_value_t = OutputFormat::Png,
        value_name = "png|latent|float",
        hide_possible_values = true
    )]
    #[serde(skip)]
    pub output_type: OutputFormat,
    /// Leave prompt, seed and settings out of the PNG.
    #[arg(long)]
    #[serde(skip)]
    pub no_metadata: bool,
    /// Write the result even if it is not finite (NaN or infinity), with a warning that names where this begins. Without this
    /// flag such a run ends with exit code 1 and writes nothing.
    #[arg(long)]
    pub allow_non_finite: bool,
    /// Write every stage as safetensors: token ids, embeddings, latents and model output of each step, VAE. Refuses a folder
    /// that already contains .safetensors files.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[serde(skip)]
    pub dump: Option<PathBuf>,
}

/// What to report, and how.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Reporting")]
pub(crate) struct ReportArgs {
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
    /// Print errors only: no progress, warnings or summary.
    #[arg(long, short)]
    pub quiet: bool,
    /// Log more to standard error; -vv logs details.
    ///
    /// -v logs the steps of the run. By default RUST_LOG or XDIT_LOGGING_LEVEL decides.
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// Write a trace of phases, blocks and kernels for chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,
    /// -h prints this help on one screen, --help all of it.
    #[arg(long, short, action = ArgAction::Help)]
    pub help: Option<bool>,
}

/// `--output-type`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// PNG files.
    #[value(alias = "pil")]
    Png,
    /// The latents.
    Latent,
    /// The image before it is rounded to bytes.
    Float,
}

impl OutputFormat {
    /// Returns the value of the flag.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Latent => "latent",
            Self::Float => "float",
        }
    }
}

impl From<OutputFormat> for xdit_models::OutputType {
    /// Returns the pipeline's kind of output.
    fn from(kind: OutputFormat) -> Self {
        match kind {
            OutputFormat::Latent => Self::Latent,
            OutputFormat::Png | OutputFormat::Float => Self::Image,
        }
    }
}
