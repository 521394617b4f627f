//! SIGINT and SIGTERM: no partial file, a whole trace, exit code 130 or 143.

use crate::console::Console;
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
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                if let Some(trace) = trace {
                    trace.finish().ok();
                }
                let _no_more_files = partials.remove_all();
                console.clear();
                std::process::exit(128 + signal);
            }
        })
        .map(drop)
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
