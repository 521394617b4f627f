//! The last resort if memory is refused to code that cannot report it: one line, no partial file, exit code 5.
//!
//! Large allocations are checked before a run, and return errors. Refused small ones, of this program and of its libraries, end
//! here.

use std::fs::File;
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use xdit_kernels::LastResort;

use crate::report::voice;

#[global_allocator]
static ALLOCATOR: LastResort = LastResort::new(end);

/// The exit code.
pub(crate) const CODE: u8 = 5;
/// Memory that is reserved for the report and the cleanup.
const RESERVE: usize = 256 << 10;
/// How long the refused thread waits for the thread that removes files. That thread may need a lock of this one.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first number of bytes that was refused, or 0.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static RESERVED: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Standard error and standard output: no lock that another thread may hold is needed to write there.
static OUTPUTS: OnceLock<Outputs> = OnceLock::new();
static TOLD: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Outputs {
    errors: Option<File>,
    results: Option<File>,
    /// Whether JSON was asked for.
    json: bool,
}

/// Prepares the orderly end. The program calls this first.
pub(crate) fn arm(json: bool) {
    if let Ok(mut reserved) = RESERVED.lock() {
        *reserved = vec![1; RESERVE];
    }
    let outputs = Outputs {
        errors: copy_of_stderr(),
        results: copy_of_stdout(),
        json,
    };
    OUTPUTS.set(outputs).ok();
}

/// Returns whether memory was refused, so that the program is ending.
pub(crate) fn is_ending() -> bool {
    REFUSED.load(Ordering::SeqCst) > 0
}

/// Ends the process. The thread that handles signals removes partial files first, if it exists.
pub(crate) fn end(bytes: usize) -> ! {
    let first = REFUSED
        .compare_exchange(0, bytes.max(1), Ordering::SeqCst, Ordering::SeqCst)
        .is_ok();
    if first {
        if let Ok(mut reserved) = RESERVED.try_lock() {
            *reserved = Vec::new();
        }
        if wake() {
            std::thread::sleep(PATIENCE);
        }
    } else if std::thread::current().name() != Some(THREAD) {
        // Another thread is already ending the process.
        std::thread::sleep(2 * PATIENCE);
    }
    tell();
    exit()
}

/// The name of the thread that handles signals.
pub(crate) const THREAD: &str = "signals";

/// Whether nothing has said yet why the program ends, or what it has done: whoever asks says it now.
pub(crate) fn is_first_to_tell() -> bool {
    !TOLD.swap(true, Ordering::SeqCst)
}

/// Writes to standard error although another thread may be in the middle of that; it waits where nobody reads.
#[cfg(unix)]
pub(crate) fn write_error(text: &str) {
    let errors = OUTPUTS.get().and_then(|outputs| outputs.errors.as_ref());
    if let Some(mut errors) = errors {
        errors.write_all(text.as_bytes()).ok();
    }
}

/// The same to standard output.
#[cfg(unix)]
pub(crate) fn write_result(text: &str) {
    let results = OUTPUTS.get().and_then(|outputs| outputs.results.as_ref());
    if let Some(mut results) = results {
        results.write_all(text.as_bytes()).ok();
    }
}

/// Returns a size for people, in whole units of at least three digits where there are as many. Allocates nothing.
fn scaled(bytes: u64) -> (u64, &'static str) {
    match bytes {
        0..10_240 => (bytes, "B"),
        10_240..10_485_760 => (bytes >> 10, "KiB"),
        10_485_760..10_737_418_240 => (bytes >> 20, "MiB"),
        _ => (bytes >> 30, "GiB"),
    }
}

/// Reports a refused allocation in one line, unless that or another failure was reported.
pub(crate) fn tell() {
    if !is_first_to_tell() {
        return;
    }
    let bytes = REFUSED.load(Ordering::SeqCst);
    let [errors, results] = match OUTPUTS.get() {
        Some(outputs) => {
            let results = outputs.results.as_ref().filter(|_| outputs.json);
            [outputs.errors.as_ref(), results]
        }
        None => [None; 2],
    };
    // This code allocates nothing.
    let mut line = Cursor::new([0; 256]);
    let (size, unit) = scaled(bytes as u64);
    let message = format_args!(
        "out of memory: the system refused {size} {unit}; free memory, or try a smaller size"
    );
    let mut write = |mut file: &File, text: std::fmt::Arguments<'_>| {
        line.set_position(0);
        line.write_fmt(text).ok();
        let end = line.position() as usize;
        file.write_all(&line.get_ref()[..end]).ok();
    };
    match errors {
        // Of a silent rank too: it cannot tell rank 0 any more.
        Some(errors) => match voice::silent_rank() {
            Some(rank) => write(errors, format_args!("error: rank {rank}: {message}\n")),
            None => write(errors, format_args!("error: {message}\n")),
        },
        // At the start, so no thread holds a lock.
        None => drop(writeln!(std::io::stderr(), "error: {message}")),
    }
    if let Some(results) = results.filter(|_| !voice::is_silent()) {
        let object = r#"{"error":{"exit_code":5,"message":""#;
        write(results, format_args!("{object}{message}\"}}}}\n"));
    }
}

/// Ends the process without a destructor or a flush.
#[cfg(unix)]
pub(crate) fn exit() -> ! {
    signal_hook::low_level::exit(CODE.into());
}

#[cfg(not(unix))]
pub(crate) fn exit() -> ! {
    std::process::exit(CODE.into());
}

/// The signal for the thread that handles signals.
#[cfg(unix)]
pub(crate) const SIGNAL: i32 = signal_hook::consts::SIGABRT;

/// Whether the signal was sent.
#[cfg(unix)]
fn wake() -> bool {
    HANDLED.load(Ordering::SeqCst) && signal_hook::low_level::raise(SIGNAL).is_ok()
}

#[cfg(not(unix))]
fn wake() -> bool {
    false
}

/// Whether a thread handles [`SIGNAL`].
#[cfg(unix)]
pub(crate) static HANDLED: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
fn copy_of_stderr() -> Option<File> {
    use std::os::fd::AsFd;
    let copy = std::io::stderr().as_fd().try_clone_to_owned();
    copy.ok().map(File::from)
}

#[cfg(unix)]
fn copy_of_stdout() -> Option<File> {
    use std::os::fd::AsFd;
    let copy = std::io::stdout().as_fd().try_clone_to_owned();
    copy.ok().map(File::from)
}

#[cfg(not(unix))]
fn copy_of_stderr() -> Option<File> {
    None
}

#[cfg(not(unix))]
fn copy_of_stdout() -> Option<File> {
    None
}
