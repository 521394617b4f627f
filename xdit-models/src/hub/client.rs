//! Requests to the hub.
//!
//! hf-hub's own client is not used: it hands the user's token to the host that weights are redirected to, waits for ever
//! for one that says nothing, and looks at a file's length only.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::HubOptions;
use crate::error::shorten;

/// How often a request is made again that the hub cannot serve now, or a download taken up again that brings next to nothing.
const RETRIES: u32 = 3;
/// A request that brings as many bytes is worth another one when it breaks off.
const WORTH_IT: u64 = 1 << 20;
/// The first pause before it; each is twice the last.
const PAUSE: Duration = Duration::from_millis(300);
/// The longest pause that the hub may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// More redirects than this lead nowhere.
const REDIRECTS: usize = 10;
/// The longest answer that is no file, in bytes; a repository's list of files has some hundred a file.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The hub answers with this status.
    Status(u16),
    /// The hub cannot be reached, or falls silent.
    Network(String),
    /// The answer makes no sense.
    Odd(String),
    /// What arrives cannot be written.
    Disk(std::io::Error),
}

/// What the hub says about a file.
#[derive(Debug)]
pub(super) struct RemoteFile {
    /// The name of its content: the SHA-256 where it is a large file.
    pub etag: String,
    /// Its bytes.
    pub size: u64,
}

/// Speaks with one hub.
pub(super) struct Client {
    agent: Agent,
    origin: String,
    token: Option<String>,
    etag_timeout: Duration,
    download_timeout: Duration,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Self {
        let config = Agent::config_builder()
            // Each is followed here, where it is decided who sees the token.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("xdit-rs/", env!("CARGO_PKG_VERSION")));
        Self {
            agent: config.build().into(),
            origin: origin(&options.endpoint).to_ascii_lowercase(),
            token: options.token.clone(),
            etag_timeout: options.etag_timeout,
            download_timeout: options.download_timeout,
        }
    }

    /// The body at `url`.
    pub(super) fn text(&self, url: &str) -> Result<Vec<u8>, Refusal> {
        let (_, mut response) = self.follow(url, None, self.etag_timeout, &mut |_| {})?;
        let mut bytes = Vec::new();
        let mut body = response.body_mut().as_reader().take(MAX_ANSWER_BYTES);
        body.read_to_end(&mut bytes)
            .map_err(|error| Refusal::Network(error.to_string()))?;
        Ok(bytes)
    }

    /// What the hub says about the file at `url`.
    pub(super) fn metadata(&self, url: &str) -> Result<RemoteFile, Refusal> {
        let (mut linked, mut plain, mut size) = (None, None, None);
        let mut seen = |response: &Response<Body>| {
            linked = linked
                .take()
                .or_else(|| header(response, "x-linked-etag").map(etag_of));
            size = size.or_else(|| header(response, "x-linked-size")?.parse().ok());
            // A repository that was renamed answers with a path, and knows nothing of the file yet.
            if header(response, "location").is_none_or(has_scheme) {
                plain = plain
                    .take()
                    .or_else(|| header(response, "etag").map(etag_of));
            }
        };
        let first_byte = Some("bytes=0-0".to_owned());
        let (_, last) = self.follow(url, first_byte, self.etag_timeout, &mut seen)?;
        let whole = |range: &str| range.rsplit('/').next()?.parse().ok();
        let size = match header(&last, "content-range") {
            _ if size.is_some() => size,
            Some(range) => whole(range),
            None => header(&last, "content-length").and_then(|length| length.parse().ok()),
        };
        Ok(RemoteFile {
            etag: linked
                .or(plain)
                .ok_or_else(|| Refusal::Odd("no ETag".into()))?,
            size: size.ok_or_else(|| Refusal::Odd("no length".into()))?,
        })
    }

    /// Brings the file at `url` to `part`, where the start of it may lie already. Tells `report` how many bytes are there.
    pub(super) fn download(
        &self,
        url: &str,
        remote: &RemoteFile,
        part: &Path,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Refusal> {
        let mut hash = Sha256::new();
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(part)
            .map_err(Refusal::Disk)?;
        let mut done = std::io::copy(&mut file, &mut Hashing(&mut hash)).map_err(Refusal::Disk)?;
        let mut idle = 0;
        report(done.min(remote.size));
        while done != remote.size {
            if done > remote.size {
                restart(&file, &mut hash, &mut done)?;
            }
            let before = done;
            let tried = self.more(url, remote.size, &mut file, &mut hash, &mut done, report);
            let enough = done == remote.size || done.saturating_sub(before) >= WORTH_IT;
            idle = if enough { 0 } else { idle + 1 };
            match tried {
                Ok(()) => {}
                Err(Refusal::Network(_)) if idle < RETRIES => {}
                Err(refusal) => return Err(refusal),
            }
            if done != remote.size {
                if idle >= RETRIES {
                    return Err(Refusal::Network(
                        "the connection breaks off again and again".into(),
                    ));
                }
                std::thread::sleep(PAUSE * 2_u32.pow(idle));
            }
        }
        let found: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if is_sha256(&remote.etag) && found != remote.etag {
            // The next run would take it up again, and find the same.
            let _ = std::fs::remove_file(part);
            return Err(Refusal::Odd(format!(
                "arrived damaged: its SHA-256 is {found}, and not {}; run it again",
                remote.etag
            )));
        }
        Ok(())
    }

    /// One request for what is missing.
    fn more(
        &self,
        url: &str,
        size: u64,
        file: &mut File,
        hash: &mut Sha256,
        done: &mut u64,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Refusal> {
        let range = Some(format!("bytes={done}-"));
        let (_, mut response) = self.follow(url, range, self.download_timeout, &mut |_| {})?;
        match response.status().as_u16() {
            206 => {
                let from = format!("bytes {done}-");
                if header(&response, "content-range").is_some_and(|it| !it.starts_with(&from)) {
                    return Err(Refusal::Odd("another part than asked for".into()));
                }
            }
            416 => return Err(Refusal::Odd("it is shorter than it was".into())),
            // The whole file comes.
            _ => restart(file, hash, done)?,
        }
        let mut body = response.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK];
        while *done < size {
            let most = CHUNK.min(usize::try_from(size - *done).unwrap_or(CHUNK));
            let read = body
                .read(&mut chunk[..most])
                .map_err(|error| Refusal::Network(error.to_string()))?;
            if read == 0 {
                break;
            }
            file.write_all(&chunk[..read]).map_err(Refusal::Disk)?;
            hash.update(&chunk[..read]);
            *done += read as u64;
            report(*done);
        }
        Ok(())
    }

    /// The answer at the end of all redirects from `url`, and where that is; `seen` looks at each on the way.
    fn follow(
        &self,
        url: &str,
        range: Option<String>,
        timeout: Duration,
        seen: &mut dyn FnMut(&Response<Body>),
    ) -> Result<(String, Response<Body>), Refusal> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let response = self.ask(&url, range.as_deref(), timeout)?;
            let status = response.status().as_u16();
            match status {
                // An empty file has no first byte.
                200..=299 | 416 => {
                    seen(&response);
                    return Ok((url, response));
                }
                301 | 302 | 303 | 307 | 308 => {
                    seen(&response);
                    let to = header(&response, "location").and_then(|to| target(&url, to));
                    url = to.ok_or_else(|| Refusal::Odd("a redirect to nowhere".into()))?;
                }
                _ => return Err(Refusal::Status(status)),
            }
        }
        Err(Refusal::Odd("too many redirects".into()))
    }

    /// The answer to one request, which is made again when the hub cannot serve it now.
    fn ask(
        &self,
        url: &str,
        range: Option<&str>,
        timeout: Duration,
    ) -> Result<Response<Body>, Refusal> {
        let mut tries = 0;
        loop {
            let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            // The hosts that hold the weights are others', and get no token.
            if let Some(token) = &self.token
                && origin(url).eq_ignore_ascii_case(&self.origin)
            {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request
                .config()
                .timeout_connect(Some(timeout))
                .timeout_recv_response(Some(timeout))
                .timeout_per_read(Some(timeout))
                .build()
                .call()
                .map_err(|error| Refusal::Network(shorten(&error.to_string())))?;
            let later = matches!(response.status().as_u16(), 429 | 500 | 502 | 503 | 504);
            if !later || tries == RETRIES {
                return Ok(response);
            }
            let wanted = header(&response, "retry-after").and_then(|seconds| seconds.parse().ok());
            let pause = wanted.map_or(PAUSE * 2_u32.pow(tries), Duration::from_secs);
            std::thread::sleep(pause.min(LONGEST_PAUSE));
            tries += 1;
        }
    }
}

/// Throws away what is there of a file.
fn restart(file: &File, hash: &mut Sha256, done: &mut u64) -> Result<(), Refusal> {
    file.set_len(0).map_err(Refusal::Disk)?;
    (*hash, *done) = (Sha256::new(), 0);
    Ok(())
}

struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn etag_of(header: &str) -> String {
    header.trim_start_matches("W/").replace('"', "")
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Scheme, host and port of `url`.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']);
    &url[..end.map_or(url.len(), |end| host + end)]
}

/// Whether `location` says how to speak with whom, and is not only a path.
fn has_scheme(location: &str) -> bool {
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.contains(['/', '?', '#']))
}

/// Where `location`, as an answer from `url` gives it, leads.
fn target(url: &str, location: &str) -> Option<String> {
    if has_scheme(location) {
        return Some(location.to_owned());
    }
    if location.starts_with("//") {
        let (scheme, _) = url.split_once("//")?;
        return Some(format!("{scheme}{location}"));
    }
    location
        .starts_with('/')
        .then(|| format!("{}{location}", origin(url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_redirects() {
        let url = "https://hub.example:8443/a/b?c#d";
        assert_eq!(origin(url), "https://hub.example:8443");
        assert_eq!(origin("http://x"), "http://x");
        assert_eq!(origin("http://x?to=http://y/"), "http://x");
        let to = |location| target(url, location);
        assert_eq!(to("/z").as_deref(), Some("https://hub.example:8443/z"));
        assert_eq!(to("//y/z").as_deref(), Some("https://y/z"));
        assert_eq!(to("http://y/z").as_deref(), Some("http://y/z"));
        let query = "/z?from=http://y";
        assert_eq!(to(query), Some(format!("https://hub.example:8443{query}")));
        assert_eq!(to("z"), None);
    }
}
