//! Requests to the hub.
//!
//! hf-hub's client is not used: it hands the user's token to the host that weights are redirected to, waits for ever for one
//! that says nothing, and looks at a file's length only.

use std::time::Duration;

use ureq::http::Response;
use ureq::{Agent, Body};

use super::address::{has_scheme, origin, target};
use super::{HubOptions, Token};
use crate::error::shorten;

/// How often a request is made again that the hub cannot serve now.
const RETRIES: u32 = 3;
/// The longest pause that the hub may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// More redirects than this lead nowhere.
const REDIRECTS: usize = 10;
/// No silence is longer: clocks cannot count to every number of seconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    authorization: Option<String>,
    retry_pause: Duration,
    pub(super) etag_timeout: Duration,
    pub(super) download_timeout: Duration,
    /// Bytes a second; a slower transfer is given up.
    pub(super) slowest: u64,
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
            origin: options.endpoint.origin(),
            // A name and password in the address are for the same header, and closer to the host.
            authorization: match options.endpoint.login() {
                Some(login) => Some(login.to_owned()),
                None => options.token.as_ref().map(Token::bearer),
            },
            retry_pause: options.retry_pause,
            etag_timeout: options.etag_timeout.min(LONGEST_SILENCE),
            download_timeout: options.download_timeout.min(LONGEST_SILENCE),
            slowest: options.slowest,
        }
    }

    /// The pause after `tries` requests; each is twice the last.
    pub(super) fn pause(&self, tries: u32) -> Duration {
        self.retry_pause
            .saturating_mul(2_u32.pow(tries))
            .min(LONGEST_PAUSE)
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

    /// The answer at the end of all redirects from `url`; `seen` looks at each on the way.
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
            std::thread::sleep(pause.min(LONGEST_PAUSE));
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
