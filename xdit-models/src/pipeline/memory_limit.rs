//! The available memory. A call that cannot fit ends with an error instead of the system's OOM killer.

use crate::error::{Error, Result};

/// Returns the bytes that this process may still use: the smaller one of the machine's available memory and the rest of the
/// control group's limit. `None` if neither can be read.
#[must_use]
fn available() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| meminfo_available(&text));
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(max, current)| max.saturating_sub(current.saturating_sub(reclaimable())));
    [machine, group].into_iter().flatten().min()
}

/// Returns the bytes of address space that this process may still map under its limits (`ulimit -v`, `ulimit -d`), if it has
/// any. The stacks of threads count here even if they are not used.
fn address_space() -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    let status = read("/proc/self/status")?;
    let left = |limit: &str, used: &str| {
        let limit = soft_limit(&limits, limit)?;
        Some(limit.saturating_sub(kibibytes(&status, used)?))
    };
    let both = [
        left("Max address space", "VmSize:"),
        left("Max data size", "VmData:"),
    ];
    both.into_iter().flatten().min()
}

/// The stack of a thread of Rust and rayon, with its guard page and the mappings that the C library adds.
const STACK: u64 = (2 << 20) + (64 << 10);
/// The reserve under a limit of address space for everything that no estimate counts: tokenizers, messages, gaps of the
/// allocator.
const HEADROOM: u64 = 24 << 20;

/// Returns the bytes that a call with this number of threads may use, if the system says: the available memory, or under a
/// limit of address space what remains beside the stacks of the threads, if that is less.
#[must_use]
pub fn available_memory(threads: u64) -> Option<u64> {
    let besides = threads.saturating_mul(STACK).saturating_add(HEADROOM);
    let mapped = address_space().map(|left| left.saturating_sub(besides));
    [available(), mapped].into_iter().flatten().min()
}

/// Returns an error if `bytes` for `what` exceed `limit`, or without a limit the [`available_memory`] of a call with `threads` threads.
pub(crate) fn check(what: &str, bytes: u64, limit: Option<u64>, threads: u64) -> Result<()> {
    let room = limit.or_else(|| available_memory(threads));
    match room {
        Some(available) if bytes > available => Err(Error::OutOfMemory {
            what: what.into(),
            bytes,
            available: room,
            cure: String::new(),
        }),
        _ => Ok(()),
    }
}

/// Returns why the system refused a thread for `what`. Under a limit of address space without room for a stack, it is an
/// [`Error::OutOfMemory`]; otherwise it is an [`Error::NoThread`] with the system's `reason`, for example a limit of threads.
/// The system reports the same reason in both cases.
#[must_use]
pub fn refused_thread(what: &str, reason: &dyn std::fmt::Display) -> Error {
    match address_space() {
        Some(left) if left < 2 * STACK => Error::OutOfMemory {
            what: format!("the stack of a thread for {what}"),
            bytes: STACK,
            available: Some(left),
            cure: String::new(),
        },
        _ => Error::NoThread {
            what: what.into(),
            reason: reason.to_string(),
        },
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// File pages that the control group counts but can release.
fn reclaimable() -> u64 {
    read("/sys/fs/cgroup/memory.stat")
        .and_then(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("inactive_file "))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

fn meminfo_available(text: &str) -> Option<u64> {
    kibibytes(text, "MemAvailable:")
}

/// Returns the bytes in the line `name` of a table of the kernel, which counts in KiB.
fn kibibytes(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the soft limit in the line `name` of `/proc/self/limits`, or `None` if it is unlimited.
fn soft_limit(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kib() {
        let text = "MemTotal:       24 kB\nMemAvailable:   22 kB\n";
        assert_eq!(meminfo_available(text), Some(22 * 1024));
        assert_eq!(meminfo_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn limits_of_the_process() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max data size             unlimited            unlimited            bytes     \n\
                    Max address space         1048576              unlimited            bytes     \n";
        assert_eq!(soft_limit(text, "Max address space"), Some(1 << 20));
        assert_eq!(soft_limit(text, "Max data size"), None);
        assert_eq!(soft_limit(text, "Max cpu time"), None);
    }

    #[test]
    fn a_plan_over_the_limit_says_so() {
        assert!(check("activations", 10, Some(10), 9).is_ok());
        let error = check("activations", 11, Some(10), 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "out of memory: activations needs 11 B, 10 B are available"
        );
    }
}
