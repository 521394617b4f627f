//! What every command needs: the flags about reporting, the console, the environment, the files in the making.

use std::time::Instant;

use xdit_models::quote;

use crate::args::{HubArgs, ReportArgs, ThreadArgs};
use crate::console::Console;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::partial::Partials;
use crate::trace::TraceFile;
use crate::{logging, signals};

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    /// When the program began.
    pub started: Instant,
    /// `--json`, `--quiet`, `-v`.
    pub report: ReportArgs,
    /// The environment.
    pub environment: Environment,
    /// Standard error.
    pub console: Console,
    /// Files that have no name yet.
    pub partials: Partials,
    trace: Option<TraceFile>,
}

impl Session {
    /// Opens the console, the log and the trace, and takes over SIGINT, SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// [`Failure::Output`] when the trace cannot be written.
    pub(crate) fn open(
        started: Instant,
        report: &ReportArgs,
        environment: Environment,
    ) -> Result<Self, Failure> {
        let partials = Partials::default();
        let console = Console::new(report, &environment);
        let trace = match &report.trace {
            Some(path) => Some(TraceFile::create(path, started, &partials)?),
            None => None,
        };
        signals::install(partials.clone(), trace.clone(), console.clone())
            .map_err(|e| xdit_models::refused_thread("signals", &e))?;
        logging::install(report, &environment, &console, trace.as_ref());
        Ok(Self {
            started,
            report: report.clone(),
            environment,
            console,
            partials,
            trace,
        })
    }

    /// Gives the trace its name, if there is one.
    ///
    /// # Errors
    /// [`Failure::Output`] when it cannot be written.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.trace.as_ref().map_or(Ok(()), TraceFile::finish)
    }

    /// The number of compute threads: the flag, the environment, or every core this process may use.
    pub(crate) fn threads(&self, args: &ThreadArgs) -> usize {
        args.threads
            .map(usize::from)
            .or_else(|| self.environment.threads())
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1)
    }

    /// `--revision` without a hub id would be ignored in silence.
    ///
    /// # Errors
    /// [`Failure::Usage`] when a flag is given that only a hub id gives a meaning.
    pub(crate) fn refuse_hub_flags(hub: &HubArgs, model: &str) -> Result<(), Failure> {
        let given = [
            ("--revision", hub.revision.is_some()),
            ("--download-dir", hub.download_dir.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::usage(format!(
                "{flag} needs a hub id as --model, and {} is none",
                quote::name(model)
            ))),
            None => Ok(()),
        }
    }
}
