//! Transfers from the hub: short answers, and files that are resumed.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::client::{Client, Refusal, RemoteFile, header};
use super::part::{CHUNK, DownloadPart, is_sha256};
use crate::quote;

/// How often a download with almost no progress is resumed.
const RETRIES: u32 = 3;
/// A request that received this many bytes does not count as a failed attempt.
const WORTH_IT: u64 = 1 << 20;
/// So much of a file of weights is asked for first: mostly more than its header, which says how long it is.
const FIRST_BYTES: usize = 64 << 10;
/// The speed is measured over this many times the longest silence.
const SILENCES: u32 = 3;

/// Is told how many bytes of a file are there, and may end its download.
pub(super) type DownloadReport<'a> = dyn FnMut(u64) -> Result<(), Refusal> + 'a;

/// The minimum speed of a transfer. It also ends transfers from a host that sends single bytes, which is never silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// The number of bytes that must arrive in each `window`.
    least: u64,
    window: Duration,
}

impl Floor {
    /// Requires at least `bytes_per_second`, where `silence` is the longest allowed silence.
    pub(super) fn new(bytes_per_second: u64, silence: Duration) -> Self {
        let window = silence.saturating_mul(SILENCES);
        let least = bytes_per_second
            .saturating_mul(window.as_millis().try_into().unwrap_or(u64::MAX))
            / 1000;
        Self { least, window }
    }

    /// Reads `body` to its end, or `most` bytes of it, and passes the chunks to `take`.
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
                        "too slow: {} in {seconds:.1} s",
                        quote::bytes(arrived)
                    )));
                }
                (since, arrived) = (Instant::now(), 0);
            }
        }
        Ok(())
    }
}

impl Client {
    /// Returns the body at `url`, at most `longest` bytes.
    pub(super) fn text(&self, url: &str, longest: u64) -> Result<Vec<u8>, Refusal> {
        let mut response = self.follow(url, None, self.etag_timeout, &mut |_| {})?;
        let mut bytes = Vec::new();
        let floor = Floor::new(self.slowest, self.etag_timeout);
        let body = response.body_mut().as_reader();
        floor.read(body, longest + 1, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            self.check_cancelled()
        })?;
        if bytes.len() as u64 > longest {
            return Err(Refusal::Odd(format!(
                "an answer of more than {}",
                quote::bytes(longest)
            )));
        }
        Ok(bytes)
    }

    /// The first bytes of the file at `url`, as many as `wanted` says by those that have come, and the bytes of the whole file.
    pub(super) fn start(
        &self,
        url: &str,
        wanted: impl Fn(&[u8]) -> usize,
    ) -> Result<(Vec<u8>, u64), Refusal> {
        let mut most = FIRST_BYTES;
        loop {
            let range = Some(format!("bytes=0-{}", most - 1));
            let mut response = self.follow(url, range, self.etag_timeout, &mut |_| {})?;
            let whole = |range: &str| range.rsplit('/').next()?.parse().ok();
            let size: Option<u64> = match header(&response, "content-range") {
                // An empty file has no first byte (416).
                Some(range)
                    if response.status() == 206 && !range.trim().starts_with("bytes 0-") =>
                {
                    return Err(Refusal::Odd("another part than asked for".into()));
                }
                Some(range) => whole(range),
                // The whole file would come; the rest of it is not read.
                None => header(&response, "content-length").and_then(|it| it.parse().ok()),
            };
            let size = size.ok_or_else(|| Refusal::Odd("no length".into()))?;
            if size == 0 {
                return Ok((Vec::new(), 0));
            }
            let mut bytes = Vec::new();
            let floor = Floor::new(self.slowest, self.etag_timeout);
            let body = response.body_mut().as_reader();
            floor.read(body, most as u64, &mut |chunk| {
                bytes.extend_from_slice(chunk);
                self.check_cancelled()
            })?;
            let wanted = wanted(&bytes).min(usize::try_from(size).unwrap_or(usize::MAX));
            if bytes.len() >= wanted {
                return Ok((bytes, size));
            }
            if wanted <= most {
                return Err(Refusal::Network("the connection breaks off".into()));
            }
            most = wanted;
        }
    }

    /// Downloads the file at `url` to `path`, which may already contain its start. Calls `report` with the number of stored
    /// bytes; an error of `report` ends the download.
    ///
    /// The part of an earlier run is resumed only if the whole file can be checked. If the check fails, the part is discarded
    /// once, so that a damaged part never becomes a damaged file.
    pub(super) fn download(
        &self,
        url: &str,
        remote: &RemoteFile,
        path: &Path,
        report: &mut DownloadReport<'_>,
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
                // The next run would resume it and fail in the same way.
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

    /// Sends requests until the file is complete.
    fn complete(
        &self,
        url: &str,
        remote: &RemoteFile,
        part: &mut DownloadPart,
        report: &mut DownloadReport<'_>,
    ) -> Result<(), Refusal> {
        let mut idle = 0;
        if part.done() > remote.size {
            part.restart().map_err(Refusal::Disk)?;
        }
        report(part.done())?;
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
                self.wait(self.pause(idle))?;
            }
        }
        Ok(())
    }

    /// Sends one request for the missing bytes.
    fn more(
        &self,
        url: &str,
        size: u64,
        part: &mut DownloadPart,
        report: &mut DownloadReport<'_>,
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
            // The hub sends the whole file.
            _ => part.restart().map_err(Refusal::Disk)?,
        }
        let floor = Floor::new(self.slowest, self.download_timeout);
        let most = size - part.done();
        floor.read(response.body_mut().as_reader(), most, &mut |chunk| {
            part.write(chunk).map_err(Refusal::Disk)?;
            self.check_cancelled()?;
            report(part.done())
        })
    }
}
