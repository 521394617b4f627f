//! Waits while another process downloads the same file.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::options::HubOptions;

/// The pause between two checks of a lock.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the file of a lock may be removed while this process takes the lock. On disks that renumber their files, it always
/// seems to be removed.
const REOPENED: usize = 100;

/// The result of a wait.
pub(super) enum Waited {
    /// The lock is held until the file is dropped.
    Held(File),
    /// The holder of the lock, described by the first `String`, has made no progress for too long.
    InVain(String),
    /// The caller's token was cancelled meanwhile.
    Cancelled,
}

/// Takes the lock `path`, which huggingface_hub uses too. Waits as long as the holder makes progress, which means that the
/// result of `trace` changes within `lock_timeout`, and the caller's token is not cancelled. One line in the log names the holder.
pub(super) fn lock(
    path: &Path,
    file: &str,
    options: &HubOptions,
    trace: &dyn Fn() -> Trace,
) -> std::io::Result<Waited> {
    let mut lock = open(path)?;
    let (mut since, mut seen) = (Instant::now(), trace());
    let (mut told, mut reopened) = (false, 0);
    loop {
        match lock.try_lock() {
            Ok(()) if is_at(&lock, path) || reopened == REOPENED => return Ok(Waited::Held(lock)),
            // The holder has removed the file and with it the lock.
            Ok(()) => {
                lock = open(path)?;
                reopened += 1;
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    let holder = holder(&lock);
                    tracing::warn!("{file}: {holder} is downloading it already: waiting");
                    told = true;
                }
                let now = trace();
                if now != seen {
                    (since, seen) = (Instant::now(), now);
                } else if since.elapsed() >= options.lock_timeout {
                    return Ok(Waited::InVain(holder(&lock)));
                }
                if options.cancel.is_cancelled() {
                    return Ok(Waited::Cancelled);
                }
                std::thread::sleep(PAUSE);
            }
            // Some shared disks have no locks. huggingface_hub continues without one too.
            Err(TryLockError::Error(_)) => return Ok(Waited::Held(lock)),
        }
    }
}

/// The state of an incoming file: the number of bytes, and the time of the last write.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Trace(u64, Option<SystemTime>);

impl Trace {
    /// Returns the state of all files in `folder` whose names begin with `name`. huggingface_hub uses other endings.
    pub(super) fn of(folder: &Path, name: &str) -> Self {
        let mut trace = Self::default();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Some(rest) = entry
                .file_name()
                .to_str()
                .and_then(|it| it.strip_prefix(name))
                && (rest.is_empty() || rest.starts_with('.'))
                && let Ok(metadata) = entry.metadata()
            {
                trace.0 = trace.0.wrapping_add(metadata.len());
                trace.1 = trace.1.max(metadata.modified().ok());
            }
        }
        trace
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Returns whether `file` is still the file at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

/// Describes the holder of the lock, if the system reports it (Linux: `/proc/locks`).
fn holder(lock: &File) -> String {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let number = inode(lock).and_then(|inode| process(&locks, inode));
    match number {
        None => "another process".into(),
        Some(number) => {
            let name = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
            match name.trim() {
                "" => format!("process {number}"),
                name => format!("process {number} ({})", crate::error::shorten(name)),
            }
        }
    }
}

#[cfg(unix)]
fn inode(file: &File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(file.metadata().ok()?.ino())
}

#[cfg(not(unix))]
fn inode(_file: &File) -> Option<u64> {
    None
}

/// Returns the process that holds a lock on the file `inode`, from lines such as `1: FLOCK  ADVISORY  WRITE 4321 08:02:1234567
/// 0 EOF`. `None` if several disks have a file of this number.
fn process(locks: &str, inode: u64) -> Option<u32> {
    let mut found = locks.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = words[..] else {
            return None;
        };
        let of = file.rsplit(':').next()?.parse::<u64>().ok()?;
        (of == inode).then(|| process.parse::<u32>().ok().filter(|process| *process > 0))?
    });
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:02:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4321 08:02:1234567 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 55 08:02:1234567 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 12 08:02:9 0 EOF\n4: FLOCK  ADVISORY  WRITE 13 08:03:9 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE -1 08:03:10 0 EOF\nnonsense";
        assert_eq!(process(locks, 1_234_567), Some(4321));
        for unknown in [77, 9, 10, 11] {
            assert_eq!(process(locks, unknown), None);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_whose_file_is_gone_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let held = open(&path).unwrap();
        assert!(is_at(&held, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&held, &path));
        open(&path).unwrap();
        assert!(!is_at(&held, &path));
        let trace = || Trace::default();
        let waited = lock(&path, "f", &HubOptions::new(folder.path()), &trace).unwrap();
        assert!(matches!(waited, Waited::Held(file) if is_at(&file, &path)));
    }
}
