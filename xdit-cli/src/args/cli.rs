//! The command line: all flags, with their names in diffusers and xDiT.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use serde::Serialize;
use xdit_kernels::{DType, Tier};

use crate::args::call::{CallArgs, PromptArgs};
use crate::args::device::DeviceChoice;
use crate::args::ranks::ParallelArgs;

/// Generate images with Diffusion Transformers.
#[derive(Debug, Parser)]
#[command(name = "xdit-cli", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
#[command(term_width = 100)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw images for prompts.
    Generate(Box<GenerateArgs>),
    /// Show what each rank would compute and how much memory it needs, without loading weights.
    Plan(Box<PlanArgs>),
    /// Repeat the run that a PNG records and compare the pixels.
    Replay(Box<ReplayArgs>),
    /// Show what a pipeline contains, without loading its weights.
    Info(InfoArgs),
    /// Download a pipeline from the hub into its cache, or complete it there.
    Download(DownloadArgs),
}

impl Command {
    /// What to report.
    pub(crate) fn report(&self) -> &ReportArgs {
        match self {
            Self::Generate(args) => &args.report,
            Self::Plan(args) => &args.report,
            Self::Replay(args) => &args.report,
            Self::Info(args) => &args.report,
            Self::Download(args) => &args.report,
        }
    }
}

/// `xdit-cli generate`.
#[derive(Debug, Args)]
#[command(after_help = GENERATE_NOTES)]
pub(crate) struct GenerateArgs {
    /// The pipeline.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The prompts.
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// diffusers' other call arguments.
    #[command(flatten)]
    pub call: CallArgs,
    /// How to compute.
    #[command(flatten)]
    pub run: RunArgs,
    /// Over which ranks.
    #[command(flatten)]
    pub parallel: ParallelArgs,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli plan`: the flags of `generate` that decide who computes what.
#[derive(Debug, Args)]
#[command(after_help = PLAN_NOTES)]
pub(crate) struct PlanArgs {
    /// The pipeline.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompts as in generate; only their number matters [default: one prompt].
    #[arg(long, short, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", help_heading = "Image")]
    pub prompt: Vec<String>,
    /// diffusers' other call arguments.
    #[command(flatten)]
    pub call: CallArgs,
    /// How to compute.
    #[command(flatten)]
    pub run: RunArgs,
    /// Over which ranks.
    #[command(flatten)]
    pub parallel: ParallelArgs,
    /// Also show which stage computes which patch at what time, for the first STEPS steps (1 to 64; default 4).
    #[arg(long, value_name = "STEPS", num_args = 0..=1, default_missing_value = "4", help_heading = "Ranks",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub show_schedule: Option<u8>,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli replay`.
#[derive(Debug, Args)]
#[command(after_help = REPLAY_NOTES)]
pub(crate) struct ReplayArgs {
    /// A PNG that xdit-cli wrote.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Run this pipeline instead of the recorded one: a folder, a hub id, or demo.
    #[arg(long, value_name = "PATH|HUB_ID", help_heading = "Model", value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// Where to find the pipeline on the hub; by default the recorded revision and variant.
    #[command(flatten)]
    pub hub: HubArgs,
    /// How to compute. The dtype and the device are the recorded ones.
    #[command(flatten)]
    pub threads: ThreadArgs,
    /// Also save the new image.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Draw even if the result is not finite (NaN or infinity) and the record does not say so.
    #[arg(long, help_heading = "Output")]
    pub allow_non_finite: bool,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A folder in diffusers' layout, a hub id such as black-forest-labs/FLUX.1-schnell, or demo; or a PNG that xdit-cli
    /// wrote, to show how it was made.
    #[arg(value_name = "MODEL|IMAGE", default_value = "demo", value_parser = NonEmptyStringValueParser::new())]
    pub model: String,
    /// The pipeline's files on the hub.
    #[command(flatten)]
    pub hub: HubArgs,
    /// SD3 only: the pipeline without T5.
    #[arg(long, help_heading = "Model")]
    pub no_t5: bool,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli download`.
#[derive(Debug, Args)]
#[command(after_help = DOWNLOAD_NOTES)]
pub(crate) struct DownloadArgs {
    /// A hub id such as black-forest-labs/FLUX.1-schnell.
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    pub model: String,
    /// The pipeline's files on the hub.
    #[command(flatten)]
    pub hub: HubArgs,
    /// SD3 only: leave T5 out.
    #[arg(long, help_heading = "Model")]
    pub no_t5: bool,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// The pipeline.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A folder in diffusers' layout, a hub id such as black-forest-labs/FLUX.1-schnell, or demo (the small pipeline
    /// inside this binary) [default: demo].
    #[arg(long, value_name = "PATH|HUB_ID", value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// The pipeline's files on the hub.
    #[command(flatten)]
    pub hub: HubArgs,
    /// SD3 only: leave T5 out, like diffusers' text_encoder_3=None, tokenizer_3=None. Its files are neither read nor
    /// downloaded, which saves memory. --prompt-3 then has no effect.
    #[arg(long)]
    pub no_t5: bool,
}

/// The files of a pipeline on the hub.
#[derive(Clone, Debug, Args)]
pub(crate) struct HubArgs {
    /// Branch, tag or commit of the hub repository [default: main].
    #[arg(long, value_name = "REVISION", help_heading = "Model", value_parser = NonEmptyStringValueParser::new())]
    pub revision: Option<String>,
    /// Weight files with this infix, e.g. fp16 for model.fp16.safetensors.
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = NonEmptyStringValueParser::new())]
    pub variant: Option<String>,
    /// The hub's cache folder [default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub].
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub download_dir: Option<PathBuf>,
}

/// Where and how to compute.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Compute")]
pub(crate) struct RunArgs {
    /// Dtype of weights and activations; sums are always f32. diffusers' default is f32 too.
    #[arg(
        long,
        value_enum,
        default_value_t = Precision::F32,
        value_name = "f32|bf16|f16",
        hide_possible_values = true
    )]
    #[serde(skip)]
    pub dtype: Precision,
    /// Where to compute; this version supports the CPU only.
    #[arg(long, default_value = "auto", value_name = "auto|cpu|cuda[:N]")]
    #[serde(skip)]
    pub device: DeviceChoice,
    /// Decode in overlapping tiles, like diffusers' enable_tiling: needs less memory for large pictures and is approximate
    /// (seams are blended). Has no effect if several ranks decode together, which is exact.
    #[arg(long)]
    pub vae_tiling: bool,
    /// Drop the text encoders before reading the transformer: less memory, slower with --prompt-file.
    #[arg(long)]
    #[serde(skip)]
    pub low_memory: bool,
    /// Threads and instructions.
    #[command(flatten)]
    #[serde(skip)]
    pub threads: ThreadArgs,
}

/// Threads and instructions.
#[derive(Debug, Args)]
pub(crate) struct ThreadArgs {
    /// Compute threads; changes the speed, never the image [default: RAYON_NUM_THREADS, OMP_NUM_THREADS or all cores].
    #[arg(long, value_name = "N", help_heading = "Compute", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Instruction tier: portable, avx2, avx512 or avx512-bf16 [default: the fastest this processor has].
    #[arg(long, value_name = "TIER", hide = true, value_parser = tier)]
    pub cpu_tier: Option<Tier>,
}

/// Where the results go.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// A file, a folder (existing, or with / at the end), or - for standard output, which takes one file. Several images are
    /// numbered _000, _001 and so on. An existing file of that name is replaced [default: xdit-SEED.png, or the next free name].
    #[arg(long, short, value_name = "FILE|FOLDER")]
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
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub dump: Option<PathBuf>,
}

/// What to report, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Reporting")]
pub(crate) struct ReportArgs {
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
    /// Print errors only: no progress bars, no warnings, no summary.
    #[arg(long, short)]
    pub quiet: bool,
    /// Log more to standard error: -v steps of the run, -vv details. By default RUST_LOG or XDIT_LOGGING_LEVEL decides.
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// Write a trace of phases, blocks and kernels for chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Precision {
    /// IEEE single.
    #[value(alias = "float32", alias = "fp32")]
    F32,
    /// bfloat16 with f32 accumulation.
    #[value(alias = "bfloat16")]
    Bf16,
    /// IEEE half with f32 accumulation.
    #[value(alias = "float16", alias = "fp16")]
    F16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
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

impl From<OutputFormat> for xdit_models::OutputType {
    /// Returns the pipeline's kind of output.
    fn from(kind: OutputFormat) -> Self {
        match kind {
            OutputFormat::Latent => Self::Latent,
            OutputFormat::Png | OutputFormat::Float => Self::Image,
        }
    }
}

fn tier(text: &str) -> Result<Tier, String> {
    text.parse().map_err(|e: xdit_kernels::Error| e.to_string())
}

/// The text below every help text, also in the README.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done (replay: the pixels are identical)
  1    failure: a file or the network could not be read or written, or the result is not finite;
       replay: the pixels differ
  2    usage: an unknown flag, or a value that is not supported
  3    model not found, or its licence not yet accepted on the hub
  4    bad model: a file is missing, damaged or not supported
  5    out of memory
  6    a rank was lost: it panicked, or finished no operation for too long
  101  a bug in this program; please report it
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)
  129  hung up (SIGHUP)

Flags may be written with - or _: --num-inference-steps, --num_inference_steps.";

const GENERATE_NOTES: &str = "\
Same image:
  The same prompt, seed, size, steps, dtype, instruction tier and ranks produce the same bytes for any --threads.
  Ulysses, ring and guidance ranks produce the image of one rank up to the last bits. PipeFusion's patches do not (--num-pipeline-patch).
  Processors with other instructions (AVX2, AVX-512, NEON) produce the same image up to the last bits.

Exit codes: 0 done, 1 failure, 2 usage, 3 model not found or gated, 4 bad model, 5 out of memory,
  6 a rank was lost, 130 SIGINT, 143 SIGTERM, 129 SIGHUP. None of them leaves a partial result.
An interrupted download leaves blobs/*.part in the hub's cache: the next run resumes it.

Example:
  xdit-cli generate --prompt \"a red circle on a blue background\" --output circle.png";

const PLAN_NOTES: &str = "\
plan reads only configurations, and downloads nothing else from the hub. The column \"parameters\" counts the transformer
only; the memory at the end counts everything. Exit codes are those of generate.

Example:
  xdit-cli plan --pipefusion-parallel-degree 2 --num-pipeline-patch 4 --show-schedule";

const REPLAY_NOTES: &str = "\
Exit codes: 0 the pixels are identical, 1 they differ or the run failed, 2 IMAGE records no run, others as for generate.";

const DOWNLOAD_NOTES: &str = "\
download fetches only the files that a pipeline needs, several at the same time: configurations, tokenizers
and the safetensors of each component. The next download resumes an interrupted one. generate downloads
missing files itself.";
