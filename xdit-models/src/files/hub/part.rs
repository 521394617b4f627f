//! An incoming file. It is stored next to its final path as `ETAG.part`, and hashed during the download.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

/// The number of bytes that are read at once.
pub(super) const CHUNK: usize = 256 << 10;
/// How often a process that hashes an existing part shows others that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// An incoming file.
pub(super) struct DownloadPart {
    file: File,
    hash: Sha256,
    done: u64,
}

impl DownloadPart {
    /// Opens the file `path`. Keeps the part of an earlier run if `kept` is set.
    pub(super) fn open(path: &Path, kept: bool) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        let mut part = Self {
            file,
            hash: Sha256::new(),
            done: 0,
        };
        match kept {
            true => part.read()?,
            false => part.restart()?,
        }
        Ok(part)
    }

    /// Returns the number of stored bytes.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Appends received bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Discards the stored bytes.
    pub(super) fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        (self.hash, self.done) = (Sha256::new(), 0);
        Ok(())
    }

    /// Returns the SHA-256 of the stored bytes.
    pub(super) fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut shown = Instant::now();
        loop {
            let read = self.file.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            self.hash.update(&chunk[..read]);
            self.done += read as u64;
            if shown.elapsed() >= SIGN_OF_LIFE {
                shown = Instant::now();
                // A waiting process looks at the time of the file. If the time cannot be set, it waits a shorter time.
                let _ = self.file.set_modified(SystemTime::now());
            }
        }
    }
}

/// Returns whether `etag` is the SHA-256 of the content, so that the file can be checked.
pub(super) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Returns the SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
