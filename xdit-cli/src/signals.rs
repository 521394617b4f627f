//! SIGINT, SIGTERM and SIGHUP: no partial file, a whole trace, exit code 130, 143 or 129.

use std::sync::atomic::Ordering;

use crate::console::Console;
use crate::last_resort;
use crate::partial::Partials;
use crate::trace::TraceFile;

/// Ends the process when it is interrupted or terminated: at once, even in the middle of a step.
///
/// # Errors
/// When the system refuses the handler.
#[cfg(unix)]
pub(crate) fn install(
    partials: Partials,
    trace: Option<TraceFile>,
    console: Console,
) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, last_resort::SIGNAL])?;
    if hangup_ends() {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::Builder::new()
        .name(last_resort::THREAD.into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                if let Some(trace) = trace {
                    trace.finish().ok();
                }
                let _no_more_files = partials.remove_all();
                if last_resort::is_ending() {
                    last_resort::tell();
                    last_resort::exit();
                }
                console.clear();
                std::process::exit(128 + signal);
            }
        })
        .map(|_| last_resort::HANDLED.store(true, Ordering::SeqCst))
}

/// Whether a hangup (the terminal is closed) would end the process: not under `nohup`, which a handler would undo.
/// Linux tells; where nobody does, the system's own handling stays.
#[cfg(unix)]
fn hangup_ends() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Bit n - 1 is signal n, and SIGHUP is 1.
    ignored.is_some_and(|mask| mask & 1 == 0)
}

/// Elsewhere the system's own handling stays: the process ends, and temporary names show what was partial.
#[cfg(not(unix))]
pub(crate) fn install(
    _partials: Partials,
    _trace: Option<TraceFile>,
    _console: Console,
) -> std::io::Result<()> {
    Ok(())
}
