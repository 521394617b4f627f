//! How much memory may be used, so that a call that cannot fit ends with an error instead of the system's OOM killer.

use crate::error::{Error, Result};

/// Bytes that this process may still take, as far as the system says: the least of the machine's available memory and
/// what the control group has left. `None` where neither can be read.
#[must_use]
pub(crate) fn available() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| meminfo_available(&text));
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(max, current)| max.saturating_sub(current.saturating_sub(reclaimable())));
    [machine, group].into_iter().flatten().min()
}

/// An error if `bytes` for `what` are more than `limit`, or than what is available when there is no limit.
pub(crate) fn check(what: &str, bytes: u64, limit: Option<u64>) -> Result<()> {
    match limit.or_else(available) {
        Some(limit) if bytes > limit => Err(Error::OutOfMemory {
            what: format!("{what} (of {limit} available)"),
            bytes,
        }),
        _ => Ok(()),
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// File pages that the control group counts but would give back.
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
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
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
    fn a_plan_over_the_limit_says_so() {
        assert!(check("activations", 10, Some(10)).is_ok());
        let error = check("activations", 11, Some(10)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "out of memory: activations (of 10 available) needs 11 bytes"
        );
    }
}
