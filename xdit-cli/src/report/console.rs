//! Standard error and standard output: progress bars, log lines that do not break them, results.
//!
//! Whatever is printed passes here, so that no text of a file, a path or a prompt reaches the terminal as more than text.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use xdit_models::quote;

use crate::args::cli::ReportArgs;
use crate::report::failure::Failure;
use crate::run::environment::Environment;

/// Where the program talks to its user.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    bars: MultiProgress,
    /// Whether bars are drawn at all.
    pub draws: bool,
    /// Whether log lines may be coloured.
    pub colors: bool,
    quiet: bool,
    /// The warnings that were printed.
    warned: Arc<Mutex<BTreeSet<String>>>,
}

impl Console {
    /// As the flags and the terminal ask: bars only on a terminal and without `--quiet`.
    pub(crate) fn new(report: &ReportArgs, environment: &Environment) -> Self {
        let terminal = io::stderr().is_terminal() && environment.var("TERM") != Some("dumb");
        let draws = terminal && !report.quiet;
        let target = match draws {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            draws,
            colors: terminal && environment.var("NO_COLOR").is_none(),
            quiet: report.quiet,
            warned: Arc::default(),
        }
    }

    /// A bar for `total` pieces of work that is gone when it is done.
    pub(crate) fn bar(&self, name: &'static str, total: u64, unit: Unit) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(total));
        let template = match unit {
            Unit::Pieces => "{prefix:8} {bar:30} {pos}/{len}  {elapsed}, {eta} left",
            Unit::Bytes => {
                "{prefix:8} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left  {msg}"
            }
            Unit::Unknown => "{prefix:8} {spinner} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(name);
        if self.draws {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    /// One line on standard error, above the bars; not with `--quiet`.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.error_line(line);
        }
    }

    /// A warning, unless it was given before: `text`, after what it is about (`place`), if that is not the whole run.
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

    /// One line on standard error, above the bars.
    pub(crate) fn error_line(&self, line: &str) {
        self.bars.suspend(|| eprint_line(line));
    }

    /// Does something that writes to the terminal, above the bars.
    pub(crate) fn above_bars<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }

    /// Takes the bars off the terminal.
    pub(crate) fn clear(&self) {
        if self.draws {
            // A terminal that is gone needs no clearing.
            self.bars.clear().ok();
        }
    }

    /// A writer of log lines.
    pub(crate) fn log_writer(&self) -> LogWriter {
        LogWriter(self.bars.clone())
    }
}

/// What a bar counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    /// Steps, tensors, files.
    Pieces,
    /// Bytes.
    Bytes,
    /// Nothing that is known beforehand.
    Unknown,
}

/// Writes log lines above the bars.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(MultiProgress);

impl Write for LogWriter {
    /// A line that cannot be written is lost: as in [`eprint_line`]. An error would make tracing complain on standard error,
    /// by a panic where that is closed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes)).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line on standard error, escaped and of bounded length; a closed standard error is nobody's fault and no reason to
/// stop.
pub(crate) fn eprint_line(line: &str) {
    writeln!(io::stderr().lock(), "{}", quote::line(line)).ok();
}

/// Lines on standard output, escaped.
///
/// # Errors
/// [`Failure::Stdout`] when its reader is gone.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write_out(&quote::escape_lines(text))
}

/// One line of JSON on standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::usage(e.to_string()))?;
    write_out(&format!("{}\n", quote::escape_json(&json)))
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Failure::Stdout)
}
