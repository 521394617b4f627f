//! A file that is arriving: it lies beside its content's place as `ETAG.part`, and is hashed on the way.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 256 << 10;
/// How often a process that reads what is there of a file shows others that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A file that is arriving.
pub(super) struct DownloadPart {
    file: File,
    hash: Sha256,
    done: u64,
}

impl DownloadPart {
    /// The file `path`, with what an earlier run left of it if that is to be `kept`.
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

    /// Bytes that are there.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Takes in what has arrived.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    pub(super) fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        (self.hash, self.done) = (Sha256::new(), 0);
        Ok(())
    }

    /// The SHA-256 of what is there.
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
                // Who waits for this file looks at its time; where that cannot be set, it waits less long.
                let _ = self.file.set_modified(SystemTime::now());
            }
        }
    }
}

/// Whether `etag` is the SHA-256 of the content, by which a file is checked.
pub(super) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
