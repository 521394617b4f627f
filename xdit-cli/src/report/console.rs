//! Standard error and standard output: progress bars, log lines that do not break them, results.
//!
//! All output passes through this module, so that text of a file, a path or a prompt cannot control the terminal.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use xdit_models::quote;

use crate::args::output::ReportArgs;
use crate::report::failure::Failure;
use crate::report::standing::Standing;
use crate::report::voice;
use crate::run::environment::Environment;
use crate::run::last_resort;

/// The output to the user.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    bars: MultiProgress,
    /// Whether to draw bars.
    pub draws: bool,
    /// Whether log lines may have colours.
    pub colors: bool,
    /// Whether only errors are told.
    pub quiet: bool,
    /// Whether results are JSON.
    pub json: bool,
    /// How far the run is.
    pub standing: Standing,
    /// The printed warnings.
    warned: Arc<Mutex<BTreeSet<String>>>,
}

impl Console {
    /// Opens the console according to the flags and the terminal: bars only on a terminal and without `--quiet`.
    pub(crate) fn new(report: &ReportArgs, environment: &Environment) -> Self {
        let terminal = io::stderr().is_terminal() && environment.var("TERM") != Some("dumb");
        // Nor of a silent rank, which may have to speak later.
        let draws = terminal && !report.quiet && !voice::is_silent();
        let target = match draws {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            draws,
            colors: terminal && environment.var("NO_COLOR").is_none(),
            quiet: report.quiet,
            json: report.json,
            standing: Standing::default(),
            warned: Arc::default(),
        }
    }

    /// `bar` among the bars.
    pub(crate) fn add(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }

    /// Whether lines tell how far the run is: no bar does, and nobody asked for silence.
    pub(crate) fn tells_lines(&self) -> bool {
        !self.draws && !self.quiet
    }

    /// Prints one line on standard error, above the bars, unless `--quiet` is set.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.error_line(line);
        }
    }

    /// Prints a warning once: `text`, after its subject `place`, if that is not the whole run.
    pub(crate) fn warn(&self, place: Option<&str>, text: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = warned.insert(text.to_owned());
        drop(warned);
        match place {
            _ if !is_new => {}
            Some(place) => self.note(&format!("warning: {place}: {text}")),
            None => self.note(&format!("warning: {text}")),
        }
    }

    /// Prints one line on standard error, above the bars.
    pub(crate) fn error_line(&self, line: &str) {
        self.bars.suspend(|| eprint_line(line));
    }

    /// Runs a function that writes to the terminal, above the bars.
    pub(crate) fn above_bars<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }

    /// Removes the bars from the terminal.
    pub(crate) fn clear(&self) {
        if self.draws {
            // A closed terminal needs no clearing.
            self.bars.clear().ok();
        }
    }

    /// Returns a writer of log lines.
    pub(crate) fn log_writer(&self) -> LogWriter {
        LogWriter(self.bars.clone())
    }
}

/// Writes log lines above the bars.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(MultiProgress);

impl Write for LogWriter {
    /// A line that cannot be written is lost, as in [`eprint_line`]. An error would make tracing print to standard error, and
    /// panic if that is closed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !voice::is_silent() {
            self.0.suspend(|| io::stderr().write_all(bytes)).ok();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints one line on standard error, escaped and of bounded length. A closed standard error is ignored.
pub(crate) fn eprint_line(line: &str) {
    if !voice::is_silent() {
        last_word(line);
    }
}

/// Prints a failure as a line on standard error: on a silent rank only if rank 0 cannot tell it. `message` is its text.
pub(crate) fn tell_error(message: &str, failure: &Failure) {
    match voice::silent_rank() {
        Some(rank) if failure.is_without_rank_0() => {
            last_word(&format!("error: rank {rank}: {message}"));
        }
        _ => eprint_line(&format!("error: {message}")),
    }
}

fn last_word(line: &str) {
    writeln!(io::stderr().lock(), "{}", quote::line(line)).ok();
}

/// Prints lines on standard output, escaped.
///
/// # Errors
/// [`Failure::Stdout`] if its reader has closed it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write_out(quote::escape_lines(text).as_bytes())
}

/// One line of JSON on standard output, which is all that the run answers: a signal adds nothing from now on.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    last_resort::is_first_to_tell();
    print_json_line(value)
}

/// One of several lines of JSON on standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::usage(e.to_string()))?;
    write_out(format!("{}\n", quote::escape_json(&json)).as_bytes())
}

/// Prints a text of this program on standard output as it is: scripts and man pages, which contain nothing of a user.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_as_is(text: &[u8]) -> Result<(), Failure> {
    write_out(text)
}

fn write_out(text: &[u8]) -> Result<(), Failure> {
    if voice::is_silent() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text)
        .and_then(|()| stdout.flush())
        .map_err(Failure::Stdout)
}
