//! What arrives from the hub: short answers, and files that are taken up again where they broke off.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::client::{Client, Refusal, RemoteFile, header};
use super::part::{CHUNK, DownloadPart, is_sha256};

/// How often a download is taken up again that brings next to nothing.
const RETRIES: u32 = 3;
/// A request that brings as many bytes is worth another one when it breaks off.
const WORTH_IT: u64 = 1 << 20;
/// Over so many times the longest silence that is allowed, the speed is looked at.
const SILENCES: u32 = 3;

/// The speed below which a transfer is given up: a host that sends a byte now and then is never silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// Bytes that must arrive in each `window`.
    least: u64,
    window: Duration,
}

impl Floor {
    /// At least `bytes_per_second`, where `silence` is the longest that is allowed.
    pub(super) fn new(bytes_per_second: u64, silence: Duration) -> Self {
        let window = silence.saturating_mul(SILENCES);
        let least = bytes_per_second
            .saturating_mul(window.as_millis().try_into().unwrap_or(u64::MAX))
            / 1000;
        Self { least, window }
    }

    /// Reads `body` to its end or to `most` bytes, in chunks that `take` gets.
    fn read(
        self,
        mut body: impl Read,
        most: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut chunk = vec![0; CHUNK];
        let mut left = most;
        let (mut since, mut arrived) = (Instant::now(), 0);
        while left > 0 {
            let room = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let read = body
                .read(&mut chunk[..room])
                .map_err(|error| Refusal::Network(error.to_string()))?;
            if read == 0 {
                break;
            }
            take(&chunk[..read])?;
            left -= read as u64;
            arrived += read as u64;
            if since.elapsed() >= self.window {
                if arrived < self.least {
                    let seconds = self.window.as_secs_f32();
                    return Err(Refusal::Network(format!(
                        "too slow: {arrived} bytes in {seconds:.1} s"
                    )));
                }
                (since, arrived) = (Instant::now(), 0);
            }
        }
        Ok(())
    }
}

impl Client {
    /// The body at `url`, of at most `longest` bytes.
    pub(super) fn text(&self, url: &str, longest: u64) -> Result<Vec<u8>, Refusal> {
        let mut response = self.follow(url, None, self.etag_timeout, &mut |_| {})?;
        let mut bytes = Vec::new();
        let floor = Floor::new(self.slowest, self.etag_timeout);
        let body = response.body_mut().as_reader();
        floor.read(body, longest + 1, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        if bytes.len() as u64 > longest {
            return Err(Refusal::Odd(format!(
                "an answer of more than {longest} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Brings the file at `url` to `path`, where the start of it may lie already. Tells `report` how many bytes are there.
    ///
    /// What an earlier run left is taken up only where the whole can be checked, and thrown away once if the check fails:
    /// a damaged part must not become a damaged file.
    pub(super) fn download(
        &self,
        url: &str,
        remote: &RemoteFile,
        path: &Path,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Refusal> {
        let checked = is_sha256(&remote.etag);
        let mut part = DownloadPart::open(path, checked).map_err(Refusal::Disk)?;
        let mut taken_up = part.done() > 0;
        loop {
            self.complete(url, remote, &mut part, report)?;
            let found = part.sha256();
            if !checked || found == remote.etag {
                return Ok(());
            }
            if !taken_up {
                // The next run would take it up again, and find the same.
                let _ = std::fs::remove_file(path);
                return Err(Refusal::Odd(format!(
                    "arrived damaged: its SHA-256 is {found}, and not {}; run it again",
                    remote.etag
                )));
            }
            tracing::info!(url, "what an earlier run left is damaged: from the start");
            part.restart().map_err(Refusal::Disk)?;
            taken_up = false;
        }
    }

    /// Makes requests until all of the file is there.
    fn complete(
        &self,
        url: &str,
        remote: &RemoteFile,
        part: &mut DownloadPart,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Refusal> {
        let mut idle = 0;
        if part.done() > remote.size {
            part.restart().map_err(Refusal::Disk)?;
        }
        report(part.done());
        while part.done() != remote.size {
            let before = part.done();
            let tried = self.more(url, remote.size, part, report);
            let whole = part.done() == remote.size;
            let enough = whole || part.done().saturating_sub(before) >= WORTH_IT;
            idle = if enough { 0 } else { idle + 1 };
            match tried {
                Ok(()) if idle >= RETRIES => {
                    let reason = "the connection breaks off again and again";
                    return Err(Refusal::Network(reason.into()));
                }
                Ok(()) => {}
                Err(Refusal::Network(_)) if idle < RETRIES => {}
                Err(refusal) => return Err(refusal),
            }
            if !whole {
                std::thread::sleep(self.pause(idle));
            }
        }
        Ok(())
    }

    /// One request for what is missing.
    fn more(
        &self,
        url: &str,
        size: u64,
        part: &mut DownloadPart,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Refusal> {
        let done = part.done();
        let range = Some(format!("bytes={done}-"));
        let mut response = self.follow(url, range, self.download_timeout, &mut |_| {})?;
        match response.status().as_u16() {
            206 => {
                let from = format!("bytes {done}-");
                if header(&response, "content-range").is_some_and(|it| !it.starts_with(&from)) {
                    return Err(Refusal::Odd("another part than asked for".into()));
                }
            }
            416 => return Err(Refusal::Odd("it is shorter than it was".into())),
            // The whole file comes.
            _ => part.restart().map_err(Refusal::Disk)?,
        }
        let floor = Floor::new(self.slowest, self.download_timeout);
        let most = size - part.done();
        floor.read(response.body_mut().as_reader(), most, &mut |chunk| {
            part.write(chunk).map_err(Refusal::Disk)?;
            report(part.done());
            Ok(())
        })
    }
}
