//! The flags of `doctor` and `launch`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueHint};

use crate::args::device::DeviceChoice;
use crate::args::notes;
use crate::args::output::ReportArgs;
use crate::args::processes::ProcessArgs;
use crate::args::suggested::Suggested;

/// `xdit-cli doctor`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli doctor [FLAGS]")]
#[command(after_help = notes::MORE, after_long_help = notes::DOCTOR, disable_help_flag = true)]
pub(crate) struct DoctorArgs {
    /// On several ranks: whose memory they send, as in generate.
    #[arg(long, default_value = "auto", value_name = "auto|cpu|cuda[:N]", hide_possible_values = true,
          help_heading = "Compute",
          value_parser = Suggested(&["auto", "cpu", "cuda"]).try_map(|text| text.parse::<DeviceChoice>()))]
    pub device: DeviceChoice,
    /// The port of the ranks.
    #[command(flatten)]
    pub processes: ProcessArgs,
    /// What to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `xdit-cli launch`.
#[derive(Debug, Args)]
#[command(override_usage = "xdit-cli launch --nproc N [FLAGS] -- COMMAND [FLAGS OF COMMAND]")]
#[command(after_help = notes::LAUNCH_SHORT, after_long_help = notes::LAUNCH, disable_help_flag = true)]
pub(crate) struct LaunchArgs {
    /// Processes on each host.
    ///
    /// Without it, the degrees of COMMAND say how many there are on all hosts together.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Processes"
    )]
    pub nproc: Option<usize>,
    /// Start them on these hosts.
    ///
    /// Through ssh, N on each, in this order. Rank 0 is on the first, which the others must reach by this name, and which reads and
    /// writes the files [default: this host, without ssh].
    #[arg(
        long,
        value_name = "A,B,…",
        value_delimiter = ',',
        value_hint = ValueHint::Hostname,
        help_heading = "Processes"
    )]
    pub hosts: Vec<String>,
    /// The command that runs another on a host, with its flags; the host and the other command follow them
    /// [default: XDIT_SSH or ssh -o BatchMode=yes].
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::CommandName, help_heading = "Processes",
          value_parser = NonEmptyStringValueParser::new())]
    pub ssh: Option<String>,
    /// The xdit-cli to start [default: this one; with --hosts, the file of the same path there].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Processes")]
    pub program: Option<PathBuf>,
    /// The port at which rank 0 waits for the others [default: a free one; with --hosts one from 20000 to 31999].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Processes")]
    pub rendezvous_port: Option<u16>,
    /// -h prints this help on one screen, --help all of it.
    #[arg(long, short, action = ArgAction::Help, help_heading = "Reporting")]
    pub help: Option<bool>,
    /// generate, replay or doctor, and its flags.
    #[arg(value_name = "COMMAND", last = true, required = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

impl LaunchArgs {
    /// What to report: as the command says.
    pub(crate) fn report(&self) -> ReportArgs {
        ReportArgs {
            json: self.command.iter().any(|word| word == "--json"),
            ..ReportArgs::default()
        }
    }
}
