//! The common part of all commands: the reporting flags, the console, the environment, the temporary files.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::args::cli::Command;
use crate::args::compute::ThreadArgs;
use crate::args::output::ReportArgs;
use crate::launch::HostShare;
use crate::output::files;
use crate::output::partial::Partials;
use crate::output::places::Places;
use crate::report::console::Console;
use crate::report::failure::Failure;
use crate::report::logging;
use crate::report::trace::TraceFile;
use crate::report::voice;
#[cfg(unix)]
use crate::run::control;
use crate::run::control::LauncherLine;
use crate::run::environment::Environment;
use crate::run::{model_choice, signals};

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    /// The start of the program.
    pub started: Instant,
    /// `--json`, `--quiet`, `-v`.
    pub report: ReportArgs,
    /// The environment.
    pub environment: Environment,
    /// Standard error.
    pub console: Console,
    /// Files that still have a temporary name.
    pub partials: Partials,
    /// The files that flags read and write.
    pub places: Places,
    /// Whether the hub's cache has all files already, because another process of this host has just downloaded them.
    pub cache_only: AtomicBool,
    /// The way to `launch`, if it has started this process so that ranks go on without a lost one.
    pub launcher: Option<LauncherLine>,
    trace: TraceFile,
}

impl Session {
    /// Opens the console and the log, and handles SIGINT, SIGTERM and SIGHUP, before any file is created.
    ///
    /// # Errors
    /// [`Failure::Usage`] if two flags name one place, [`Failure::Output`] if a folder cannot be created.
    pub(crate) fn open(
        started: Instant,
        command: &Command,
        report: ReportArgs,
        environment: Environment,
    ) -> Result<Self, Failure> {
        let console = Console::new(&report, &environment);
        let session = Self {
            started,
            // A silent rank writes nothing.
            places: match voice::is_silent() {
                true => Places::default(),
                false => places(command, &report, &environment)?,
            },
            report,
            environment,
            console,
            partials: Partials::default(),
            cache_only: AtomicBool::new(false),
            launcher: None,
            trace: TraceFile::default(),
        };
        let trace = session.trace.clone();
        // launch writes no file, and ends after its processes.
        if !matches!(command, Command::Launch(_)) {
            signals::install(session.partials.clone(), trace, session.console.clone())
                .map_err(|e| xdit_models::refused_thread("signals", &e))?;
        }
        #[cfg(unix)]
        let session = Self {
            launcher: control::watch(&session.environment)?,
            ..session
        };
        let opened = session.make_files(command);
        if opened.is_err() {
            session.partials.remove_empty_folders();
        }
        opened.map(|()| session)
    }

    /// Creates the folders of output files, and opens the log.
    fn make_files(&self, command: &Command) -> Result<(), Failure> {
        if let Command::Generate(args) = command
            && !voice::is_silent()
        {
            let output = args.output.output.as_deref();
            let folders = [
                args.output.dump.as_deref(),
                output.filter(|output| files::ends_in_separator(output)),
            ];
            for folder in folders.into_iter().flatten() {
                self.partials.make_folder(folder)?;
            }
        }
        let trace = self.report.trace.is_some().then_some(&self.trace);
        logging::install(&self.report, &self.environment, &self.console, trace);
        Ok(())
    }

    /// Begins the trace, if the flags ask for one. Call it after all checks of names: from now on the trace gets its name for
    /// any end of the run.
    ///
    /// # Errors
    /// [`Failure::Output`] if it cannot be written.
    pub(crate) fn begin_trace(&self) -> Result<(), Failure> {
        match &self.report.trace {
            Some(path) => self.trace.begin(path, self.started, &self.partials),
            None => Ok(()),
        }
    }

    /// Gives the trace its name, if there is one, and removes folders that are still empty.
    ///
    /// # Errors
    /// [`Failure::Output`] if it cannot be written.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let finished = self.trace.finish();
        self.partials.remove_empty_folders();
        finished
    }

    /// Returns the number of compute threads: of the flag, of the environment, or all cores of this process. Processes of a job
    /// that may run on the same cores divide them.
    pub(crate) fn threads(&self, args: &ThreadArgs, share: Option<HostShare>) -> usize {
        let cores = || {
            let all = std::thread::available_parallelism().ok()?.get();
            Some((all / share.map_or(1, |share| share.on_same_cores)).max(1))
        };
        args.threads
            .map(usize::from)
            .or_else(|| self.environment.threads())
            .or_else(cores)
            .unwrap_or(1)
    }
}

/// Returns the files that the flags of `command` read and write, except the pictures.
///
/// # Errors
/// [`Failure::Usage`] if a written file is also another file of the run.
fn places(
    command: &Command,
    report: &ReportArgs,
    environment: &Environment,
) -> Result<Places, Failure> {
    let mut places = Places::default();
    let model = match command {
        Command::Generate(args) => Some((args.model.model.as_deref(), &args.files.hub)),
        Command::Plan(args) => Some((args.model.model.as_deref(), &args.files.hub)),
        Command::Replay(args) => Some((args.model.as_deref(), &args.hub)),
        Command::Info(args) => Some((Some(args.model.as_str()), &args.files.hub)),
        Command::Download(args) => Some((Some(args.model.as_str()), &args.files.hub)),
        Command::Devices(_)
        | Command::Doctor(_)
        | Command::Launch(_)
        | Command::Completions(_)
        | Command::Man(_) => None,
    };
    if let Some((Some(name), hub)) = model
        && let Some(folder) = model_choice::folder_of(name, hub, environment)
    {
        places.model("--model", &folder);
    }
    match command {
        Command::Generate(args) => {
            let file = args.prompts.prompt_file.as_deref();
            if let Some(file) = file.filter(|file| *file != Path::new("-")) {
                places.read("--prompt-file", file);
            }
            if let Some(folder) = &args.output.dump {
                places.dump("--dump", folder)?;
            }
        }
        Command::Replay(args) => places.read("replay", &args.image),
        _ => {}
    }
    if let Some(trace) = &report.trace {
        places.write("--trace", trace)?;
    }
    Ok(places)
}
