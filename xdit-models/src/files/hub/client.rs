//! Requests to the hub.
//!
//! The client of hf-hub is not used: it sends the user's token to the host to which the hub redirects downloads of weights,
//! waits without limit for a silent host, and checks only the length of a file.

use std::time::{Duration, Instant};

use ureq::http::Response;
use ureq::{Agent, Body};

use super::address::{has_scheme, origin, target};
use super::{HubOptions, Token};
use crate::cancel::CancelToken;
use crate::error::shorten;

/// The number of retries if the hub cannot answer now.
const RETRIES: u32 = 3;
/// The longest pause that the hub may request.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a pause looks whether the download is cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// The largest number of redirects.
const REDIRECTS: usize = 10;
/// The longest silence. Clocks cannot represent every number of seconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The reason for a missing answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The status of the hub's answer.
    Status(u16),
    /// The hub could not be reached, or was silent for too long.
    Network(String),
    /// The answer was invalid.
    Odd(String),
    /// The received data could not be written.
    Disk(std::io::Error),
    /// Another file failed, and with it the pipeline.
    Stopped,
    /// The caller's token is cancelled.
    Cancelled,
}

/// The hub's facts about a file.
#[derive(Debug)]
pub(super) struct RemoteFile {
    /// The name of its content: the SHA-256 for a large file.
    pub etag: String,
    /// The number of its bytes.
    pub size: u64,
}

/// Sends requests to one hub.
pub(super) struct Client {
    agent: Agent,
    origin: String,
    authorization: Option<String>,
    retry_pause: Duration,
    cancel: CancelToken,
    pub(super) etag_timeout: Duration,
    pub(super) download_timeout: Duration,
    /// Bytes per second. A slower transfer is ended.
    pub(super) slowest: u64,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Self {
        let config = Agent::config_builder()
            // Redirects are followed here, so that only the hub receives the token.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("xdit-rs/", env!("CARGO_PKG_VERSION")));
        Self {
            agent: config.build().into(),
            origin: options.endpoint.origin(),
            // A name and password in the address use the same header and take precedence.
            authorization: match options.endpoint.login() {
                Some(login) => Some(login.to_owned()),
                None => options.token.as_ref().map(Token::bearer),
            },
            retry_pause: options.retry_pause,
            cancel: options.cancel.clone(),
            etag_timeout: options.etag_timeout.min(LONGEST_SILENCE),
            download_timeout: options.download_timeout.min(LONGEST_SILENCE),
            slowest: options.slowest,
        }
    }

    /// Returns the pause after `tries` requests. Each pause is twice as long as the last.
    pub(super) fn pause(&self, tries: u32) -> Duration {
        self.retry_pause
            .saturating_mul(2_u32.pow(tries))
            .min(LONGEST_PAUSE)
    }

    /// Returns an error if the caller's token is cancelled.
    pub(super) fn check_cancelled(&self) -> Result<(), Refusal> {
        self.cancel.check().map_err(|_| Refusal::Cancelled)
    }

    /// Waits, unless the caller's token is cancelled meanwhile.
    pub(super) fn wait(&self, pause: Duration) -> Result<(), Refusal> {
        let end = Instant::now() + pause;
        loop {
            self.check_cancelled()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Returns the hub's facts about the file at `url`.
    pub(super) fn metadata(&self, url: &str) -> Result<RemoteFile, Refusal> {
        let (mut linked, mut plain, mut size) = (None, None, None);
        let mut seen = |response: &Response<Body>| {
            linked = linked
                .take()
                .or_else(|| header(response, "x-linked-etag").map(etag_of));
            size = size.or_else(|| header(response, "x-linked-size")?.parse().ok());
            // A repository that was renamed answers with a path, and without facts about the file.
            if header(response, "location").is_none_or(has_scheme) {
                plain = plain
                    .take()
                    .or_else(|| header(response, "etag").map(etag_of));
            }
        };
        let first_byte = Some("bytes=0-0".to_owned());
        let last = self.follow(url, first_byte, self.etag_timeout, &mut seen)?;
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

    /// Returns the answer after all redirects from `url`. `seen` receives each answer on the way.
    pub(super) fn follow(
        &self,
        url: &str,
        range: Option<String>,
        timeout: Duration,
        seen: &mut dyn FnMut(&Response<Body>),
    ) -> Result<Response<Body>, Refusal> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let response = self.ask(&url, range.as_deref(), timeout)?;
            let status = response.status().as_u16();
            match status {
                // An empty file has no first byte.
                200..=299 | 416 => {
                    seen(&response);
                    return Ok(response);
                }
                301 | 302 | 303 | 307 | 308 => {
                    seen(&response);
                    let to = header(&response, "location").and_then(|to| target(&url, to));
                    url = to.ok_or_else(|| {
                        Refusal::Odd(
                            "a redirect to no http or https address, or to a password".into(),
                        )
                    })?;
                }
                _ => return Err(Refusal::Status(status)),
            }
        }
        Err(Refusal::Odd("too many redirects".into()))
    }

    /// Returns the answer to one request. Retries if the hub cannot answer now.
    fn ask(
        &self,
        url: &str,
        range: Option<&str>,
        timeout: Duration,
    ) -> Result<Response<Body>, Refusal> {
        let mut tries = 0;
        loop {
            self.check_cancelled()?;
            let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            // Other hosts than the hub store the weights. They do not receive the token.
            if let Some(authorization) = &self.authorization
                && origin(url).eq_ignore_ascii_case(&self.origin)
            {
                request = request.header("Authorization", authorization);
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
            let pause = wanted.map_or_else(|| self.pause(tries), Duration::from_secs);
            self.wait(pause.min(LONGEST_PAUSE))?;
            tries += 1;
        }
    }
}

pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn etag_of(header: &str) -> String {
    header.trim_start_matches("W/").replace('"', "")
}
