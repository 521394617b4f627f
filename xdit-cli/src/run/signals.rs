//! SIGINT, SIGTERM and SIGHUP: no partial file, a complete trace, exit code 130, 143 or 129, for any reader of the terminal.
//!
//! The code that ends the process takes no lock that a thread holds while it writes to standard output or standard error: if no
//! process reads there, such a write never returns.

use std::sync::atomic::Ordering;

use crate::launch::lost;
use crate::output::partial::Partials;
use crate::report::console::Console;
use crate::report::farewell::Farewell;
use crate::report::trace::TraceFile;
use crate::run::last_resort;

/// How long the end of the process waits for somebody to read what it says.
#[cfg(unix)]
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(200);

/// Ends the process when it is interrupted or terminated, at once, even in the middle of a step. Makes a file that grows too
/// large an error of the write. Call it before the first file is created.
///
/// # Errors
/// If the system refuses the handler.
#[cfg(unix)]
pub(crate) fn install(
    partials: Partials,
    trace: TraceFile,
    console: Console,
) -> std::io::Result<()> {
    use signal_hook::consts::{
        SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ,
    };
    // With a handler, the write that exceeds RLIMIT_FSIZE fails with EFBIG. Without one, the process dies of the signal.
    signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default())?;
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, last_resort::SIGNAL])?;
    for signal in not_ignored(&[SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU]) {
        signals.add_signal(signal)?;
    }
    std::thread::Builder::new()
        .name(last_resort::THREAD.into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                trace.finish().ok();
                let _no_more_files = partials.remove_all();
                if last_resort::is_ending() {
                    last_resort::tell();
                    last_resort::exit();
                }
                let lost = match signal {
                    SIGINT => None,
                    _ => lost::before_the_end(),
                };
                if let Some(message) = lost {
                    say(console, Some(Farewell::of_lost_rank(message)));
                    signal_hook::low_level::exit(Farewell::LOST);
                }
                let farewell = Farewell::of(signal);
                say(console, farewell.clone());
                if farewell.is_none() {
                    // These signals have no exit code of this program: the process dies of them, as it would without a handler.
                    signal_hook::low_level::emulate_default_handler(signal).ok();
                }
                // Not `std::process::exit`, which flushes standard output.
                signal_hook::low_level::exit(128 + signal);
            }
        })
        .map(|_| last_resort::HANDLED.store(true, Ordering::SeqCst))
}

/// Takes the bars off the terminal and says what was interrupted, if that is read: another thread tries, and is not waited for.
#[cfg(unix)]
fn say(console: Console, farewell: Option<Farewell>) {
    let (done, said) = std::sync::mpsc::channel();
    let saying = move || {
        console.clear();
        if let Some(farewell) = farewell.filter(|_| last_resort::is_first_to_tell()) {
            farewell.say(&console);
        }
        done.send(()).ok();
    };
    // Without a thread the bars stay.
    if std::thread::Builder::new().spawn(saying).is_ok() {
        said.recv_timeout(PATIENCE).ok();
    }
}

/// Returns those of `signals` that the parent process does not ignore.
#[cfg(unix)]
pub(crate) fn not_ignored(signals: &[i32]) -> Vec<i32> {
    let ignored = Ignored::read();
    let signals = signals.iter().copied();
    signals.filter(|signal| ignored.lacks(*signal)).collect()
}

/// Returns the signals that the parent process ignores, like `nohup` ignores the hangup. A handler would undo this. Linux
/// reports them. On other systems, the system's own handling stays.
#[cfg(unix)]
struct Ignored(u64);

#[cfg(unix)]
impl Ignored {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self(mask.unwrap_or(u64::MAX))
    }

    fn lacks(&self, signal: i32) -> bool {
        // Bit n - 1 is signal n.
        self.0 & (1 << (signal - 1)) == 0
    }
}

/// Elsewhere the system's own handling stays: the process ends, and temporary names show what was partial.
#[cfg(not(unix))]
pub(crate) fn install(
    _partials: Partials,
    _trace: TraceFile,
    _console: Console,
) -> std::io::Result<()> {
    Ok(())
}
