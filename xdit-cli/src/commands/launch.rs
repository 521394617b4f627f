//! `xdit-cli launch`: the same program several times, as ranks, without any other launcher.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::args::argv::{self, Parsed};
use crate::args::cli::Command;
use crate::args::launch::LaunchArgs;
use crate::launcher::{self, layout, layout::LaunchJob};
use crate::report::console;
use crate::report::failure::Failure;
use crate::run::session::Session;

/// The command that runs another on a host. Nobody is there to type a password for each rank.
const SSH: &str = "ssh -o BatchMode=yes";

/// How long the news of a loss may travel.
const KNOWN: Duration = Duration::from_secs(10);

/// Starts the processes, waits for them, and returns the exit code of the job.
///
/// # Errors
/// [`Failure::Usage`] for a command that cannot run as ranks, or a number of processes that cannot be, [`Failure::Start`] if the
/// system refuses a process.
pub(crate) fn run(args: &LaunchArgs, session: &Session) -> Result<u8, Failure> {
    let words = std::iter::once("xdit-cli".into()).chain(args.command.iter().cloned());
    let command = match argv::parse(words)? {
        Parsed::Run(cli) => cli.command,
        // The help of the command.
        Parsed::Text(text) => return console::print(&text).map(|()| 0),
    };
    let outcome = launcher::run(&job(args, &command, session)?)?;
    if !command.report().quiet {
        for line in &outcome.lost {
            console::eprint_line(&format!("warning: {line}"));
        }
    }
    if let Some(line) = &outcome.line {
        console::eprint_line(&format!("error: {line}"));
        if session.report.json && outcome.is_silent {
            console::print_json(
                &json!({"error": {"message": line, "exit_code": outcome.exit_code}}),
            )?;
        }
    }
    Ok(outcome.exit_code)
}

fn job(args: &LaunchArgs, command: &Command, session: &Session) -> Result<LaunchJob, Failure> {
    let hosts = layout::hosts(&args.hosts)?;
    let has_ssh = hosts.iter().any(Option::is_some);
    let degrees = ranks(command, has_ssh)?;
    let ssh = args
        .ssh
        .as_deref()
        .or_else(|| session.environment.var("XDIT_SSH"));
    let ssh: Vec<String> = ssh
        .unwrap_or(SSH)
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if ssh.is_empty() {
        return Err(Failure::usage(
            "--ssh (XDIT_SSH): expected a program, such as ssh",
        ));
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => {
            let own = std::env::current_exe();
            own.map_err(|error| Failure::start("the path of this program", &error))?
        }
    };
    Ok(LaunchJob {
        per_host: layout::per_host(args.nproc, degrees, hosts.len())?,
        hosts,
        words: args.command.clone(),
        port: args.rendezvous_port,
        ssh: if has_ssh { ssh } else { Vec::new() },
        program,
        patience: patience(command),
    })
}

/// Returns how long ranks of a command that goes on without a lost one may take until they know of it: as long as they may compute
/// without a word to each other.
fn patience(command: &Command) -> Option<Duration> {
    match command {
        Command::Generate(args) if command.replans() => {
            Some(Duration::from_secs(args.parallel.rank_timeout) + KNOWN)
        }
        _ => None,
    }
}

/// Returns how many ranks a command asks for, if it says so.
///
/// # Errors
/// [`Failure::Usage`] if it cannot run as ranks.
fn ranks(command: &Command, has_ssh: bool) -> Result<Option<usize>, Failure> {
    match command {
        Command::Generate(args) => {
            let file = args.prompts.prompt_file.as_deref();
            if has_ssh && file == Some(Path::new("-")) {
                return Err(Failure::usage(
                    "--prompt-file - reads standard input, which --hosts needs itself; name a file of the first host",
                ));
            }
            Ok(args.parallel.plan()?.degrees.product())
        }
        Command::Replay(_) | Command::Doctor(_) => Ok(None),
        other => Err(Failure::usage(format!(
            "launch starts generate, replay and doctor; {} runs as one process, without launch",
            other.name()
        ))),
    }
}
