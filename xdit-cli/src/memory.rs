//! How much memory the process has used at most.

/// The most memory that the process has held at one time, in bytes; none where the system does not tell (only Linux
/// does, in `/proc/self/status`: `VmHWM`).
pub(crate) fn peak_bytes() -> Option<u64> {
    kibibytes(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmHWM:",
    )
}

fn kibibytes(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// `bytes` in the largest binary unit that leaves a whole part: `3.2 GiB`.
pub(crate) fn shown(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024. && unit + 1 < units.len() {
        value /= 1024.;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10. => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_tables_of_linux() {
        let table = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t   2048 kB\n";
        assert_eq!(kibibytes(table, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(table, "VmRSS:"), None);
        assert_eq!(kibibytes("VmHWM: lots kB", "VmHWM:"), None);
    }

    #[test]
    fn units() {
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown(256 << 20), "256 MiB");
        assert_eq!(shown(u64::MAX), "16 EiB");
    }
}
