//! The commands and their flags, with their names in diffusers and xDiT.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint, builder::NonEmptyStringValueParser};
use clap_complete::Shell;

use crate::args::call::{CallArgs, PromptArgs};
use crate::args::compute::{RunArgs, ThreadArgs};
use crate::args::launch::{DoctorArgs, LaunchArgs};
use crate::args::model::{FilesArgs, HubArgs, ModelArgs};
use crate::args::notes;
use crate::args::output::{OutputArgs, ReportArgs};
use crate::args::processes::ProcessArgs;
use crate::args::ranks::{LossPolicy, ParallelArgs};

/// Generate images with Diffusion Transformers.
///
/// xdit-cli draws images from text with Flux.1, Stable Diffusion 3 and 3.5, and HunyuanDiT, on the processor of one machine. It
/// contains a small model, the demo.
#[derive(Debug, Parser)]
#[command(override_usage = "xdit-cli COMMAND [FLAGS]")]
#[command(
    name = "xdit-cli",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = notes::SHORT, after_long_help = notes::whole(), disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw images for prompts.
    ///
    /// The program writes each image as a PNG, which records how it was made. replay draws it again, info shows the record.
    Generate(Box<GenerateArgs>),
    /// Show who would compute what and how much memory it needs.
    ///
    /// No weights are read.
    Plan(Box<PlanArgs>),
    /// Repeat the run that a PNG records and compare the pixels.
    Replay(Box<ReplayArgs>),
    /// Show what a pipeline contains, or how an image was made.
    ///
    /// No weights are loaded. Of a pipeline on the hub, only configurations and the headers of the weights are read.
    Info(InfoArgs),
    /// Download a pipeline from the hub, or complete a download.
    Download(DownloadArgs),
    /// List the processor and the GPUs of this machine.
    ///
    /// Where there is no GPU, one line says why.
    Devices(DevicesArgs),
    /// Show what this machine offers to a run, what is missing, and what to do.
    ///
    /// A screenful: the processor, memory, models, GPUs and driver, NCCL, MPI, launchers. Started as several ranks, it also measures
    /// how fast they exchange messages.
    Doctor(DoctorArgs),
    /// Start a command as ranks, one process each, on this host or on several.
    Launch(LaunchArgs),
    /// Print a script with which a shell completes commands and flags.
    Completions(CompletionsArgs),
    /// Print a man page, or write all of them.
    Man(ManArgs),
}

/// What the ranks of a job do with a command, if a launcher starts several of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RanksOf {
    /// They do it together: they meet, at this port if a flag says one.
    Meet { port: Option<u16> },
    /// Rank 0 does it, and the others nothing.
    RankZero,
    /// Each does it.
    Each,
}

impl Command {
    /// What the ranks of a job do with it.
    pub(crate) fn ranks(&self) -> RanksOf {
        let meet = |port: Option<u16>| RanksOf::Meet { port };
        match self {
            Self::Generate(args) => meet(args.processes.rendezvous_port),
            Self::Replay(args) => meet(args.processes.rendezvous_port),
            Self::Doctor(args) => meet(args.processes.rendezvous_port),
            Self::Launch(_) => RanksOf::Each,
            Self::Plan(_)
            | Self::Info(_)
            | Self::Download(_)
            | Self::Devices(_)
            | Self::Completions(_)
            | Self::Man(_) => RanksOf::RankZero,
        }
    }

    /// Whether ranks go on without a lost one.
    pub(crate) fn replans(&self) -> bool {
        match self {
            Self::Generate(args) => args.parallel.on_rank_loss == LossPolicy::Replan,
            _ => false,
        }
    }

    /// The word that calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Generate(_) => "generate",
            Self::Plan(_) => "plan",
            Self::Replay(_) => "replay",
            Self::Info(_) => "info",
            Self::Download(_) => "download",
            Self::Devices(_) => "devices",
            Self::Doctor(_) => "doctor",
            Self::Launch(_) => "launch",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }

    /// What to report; the defaults for a command without these flags.
    pub(crate) fn report(&self) -> ReportArgs {
        match self {
            Self::Generate(args) => args.report.clone(),
            Self::Plan(args) => args.report.clone(),
            Self::Replay(args) => args.report.clone(),
            Self::Info(args) => args.report.clone(),
            Self::Download(args) => args.report.clone(),
            Self::Devices(args) => args.report.clone(),
            Self::Doctor(args) => args.report.clone(),
            Self::Launch(args) => args.report(),
            Self::Completions(_) | Self::Man(_) => ReportArgs::default(),
        }
    }
}

/// `xdit-cli generate`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli generate --prompt TEXT [--output FILE] [FLAGS]")]
#[command(after_help = notes::GENERATE_SHORT, after_long_help = notes::GENERATE, disable_help_flag = true)]
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
    /// Which files of the pipeline.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Over which ranks.
    #[command(flatten)]
    pub parallel: ParallelArgs,
    /// How processes find each other.
    #[command(flatten)]
    pub processes: ProcessArgs,
    /// How to compute.
    #[command(flatten)]
    pub run: RunArgs,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli plan`: the flags of `generate` that decide who computes what.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli plan [--model MODEL] [FLAGS]")]
#[command(after_help = notes::MORE, after_long_help = notes::PLAN, disable_help_flag = true)]
pub(crate) struct PlanArgs {
    /// The pipeline.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompts; only their number matters.
    ///
    /// As in generate [default: one prompt].
    #[arg(long, short, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", value_hint = ValueHint::Other,
          help_heading = "Image")]
    pub prompt: Vec<String>,
    /// diffusers' other call arguments.
    #[command(flatten)]
    pub call: CallArgs,
    /// Which files of the pipeline.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Over which ranks.
    #[command(flatten)]
    pub parallel: ParallelArgs,
    /// Which stage computes what, and when.
    ///
    /// A table of stages, patches and time for the first STEPS steps (1 to 64; 4 without a number).
    #[arg(long, value_name = "STEPS", num_args = 0..=1, default_missing_value = "4", help_heading = "Ranks",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub show_schedule: Option<u8>,
    /// How to compute.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli replay`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli replay IMAGE [FLAGS]")]
#[command(after_help = notes::MORE, after_long_help = notes::REPLAY, disable_help_flag = true)]
#[command(mut_arg("revision", |flag| flag.help("Branch, tag or commit of the hub repository [default: the recorded one]")))]
#[command(mut_arg("variant", |flag| flag.help("Weight files with this infix [default: the recorded one]")))]
pub(crate) struct ReplayArgs {
    /// A PNG that xdit-cli wrote.
    #[arg(value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    pub image: PathBuf,
    /// Another pipeline than the recorded one.
    ///
    /// A folder, a hub id, or demo.
    #[arg(long, value_name = "PATH|HUB_ID", help_heading = "Model", value_hint = ValueHint::DirPath,
          value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// Where to find the pipeline on the hub; by default the recorded revision and variant.
    #[command(flatten)]
    pub hub: HubArgs,
    /// How to compute. The dtype and the device are the recorded ones.
    #[command(flatten)]
    pub threads: ThreadArgs,
    /// How processes find each other.
    #[command(flatten)]
    pub processes: ProcessArgs,
    /// Also save the new image.
    #[arg(long, short, value_name = "FILE", help_heading = "Output", value_hint = ValueHint::FilePath)]
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
#[command(override_usage = "xdit-cli info [MODEL|IMAGE] [FLAGS]")]
#[command(after_help = notes::MORE, after_long_help = notes::INFO, disable_help_flag = true)]
pub(crate) struct InfoArgs {
    /// A folder, a hub id, demo, or a PNG.
    ///
    /// A folder has diffusers' layout, a hub id is a name such as black-forest-labs/FLUX.1-schnell, and a PNG is one that
    /// xdit-cli wrote.
    #[arg(value_name = "MODEL|IMAGE", default_value = "demo", value_hint = ValueHint::AnyPath,
          value_parser = NonEmptyStringValueParser::new())]
    pub model: String,
    /// Which files of the pipeline.
    #[command(flatten)]
    pub files: FilesArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli download`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli download MODEL [FLAGS]")]
#[command(after_help = notes::MORE, after_long_help = notes::DOWNLOAD, disable_help_flag = true)]
pub(crate) struct DownloadArgs {
    /// A hub id such as black-forest-labs/FLUX.1-schnell.
    #[arg(value_name = "MODEL", value_hint = ValueHint::Other, value_parser = NonEmptyStringValueParser::new())]
    pub model: String,
    /// Which files of the pipeline.
    #[command(flatten)]
    pub files: FilesArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli devices`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli devices [FLAGS]")]
#[command(after_help = notes::MORE, after_long_help = notes::DEVICES, disable_help_flag = true)]
pub(crate) struct DevicesArgs {
    /// How the processor computes.
    #[command(flatten)]
    pub threads: ThreadArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli completions`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli completions SHELL", after_help = notes::COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh.
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    pub shell: Shell,
}

/// `xdit-cli man`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli man [COMMAND]\n       xdit-cli man --output-dir DIR", after_help = notes::MAN)]
pub(crate) struct ManArgs {
    /// The command whose page to print [default: the page of xdit-cli].
    #[arg(value_name = "COMMAND", conflicts_with = "output_dir", value_parser = NonEmptyStringValueParser::new())]
    pub page: Option<String>,
    /// Write the pages of all commands into this folder, which is created: xdit-cli.1, xdit-cli-generate.1, ….
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output_dir: Option<PathBuf>,
}
