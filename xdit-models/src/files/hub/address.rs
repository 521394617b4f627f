//! Addresses of the hub and its token. They are checked before use, and messages never contain their secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ureq::http::Uri;

use crate::error::{Error, Result};

/// The public hub.
pub const HUB_ENDPOINT: &str = "https://huggingface.co";

/// The characters that are not encoded in a part of an address (RFC 3986, "unreserved").
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// As [`ENCODED`], for a path: `/` is not encoded.
const ENCODED_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The address of a hub: `http` or `https`, a host, optionally a port, a path, and a name and password before the host.
/// Requests send the name and password, and messages never show them.
///
/// # Examples
/// ```
/// use xdit_models::hub::Endpoint;
/// let mirror = Endpoint::new("https://me:secret@mirror.example/hf/")?;
/// assert_eq!(mirror.to_string(), "https://mirror.example/hf");
/// assert!(!format!("{mirror:?}").contains("secret"));
/// assert!(Endpoint::new("mirror.example").is_err());
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Endpoint {
    base: String,
    login: Option<String>,
}

impl Endpoint {
    /// Parses the address of a hub.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the address is invalid. The error does not quote an address that may contain a password.
    pub fn new(address: &str) -> Result<Self> {
        let address = address.trim();
        let wrong = |reason: &str| {
            let given = match address.contains('@') {
                true => "(not shown, as it may hold a password)",
                false => address,
            };
            let allowed = format!("the http:// or https:// address of a hub: {reason}");
            Error::invalid("endpoint", given, allowed)
        };
        let (scheme, rest) = address
            .split_once("://")
            .ok_or_else(|| wrong("it does not begin with http:// or https://"))?;
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(wrong("it does not begin with http:// or https://"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        if path.contains(['?', '#']) {
            return Err(wrong("it has a query"));
        }
        let base = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        let uri: Uri = base
            .parse()
            .map_err(|error: ureq::http::uri::InvalidUri| wrong(&error.to_string()))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        let port = uri.authority().map_or("", |it| it.as_str());
        let port = port.rsplit_once(']').map_or(port, |(_, port)| port);
        if port.contains(':') && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("its port is no number from 1 to 65535"));
        }
        let login = login.map(|login| {
            let plain: Vec<u8> = percent_decode_str(login).collect();
            format!("Basic {}", STANDARD.encode(plain))
        });
        Ok(Self { base, login })
    }

    /// Returns scheme, host and port, in lower case.
    pub(super) fn origin(&self) -> String {
        origin(&self.base).to_ascii_lowercase()
    }

    /// Returns the value of the header `Authorization` for the name and password of the address.
    pub(super) fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }
}

impl Default for Endpoint {
    /// The public hub.
    fn default() -> Self {
        Self {
            base: HUB_ENDPOINT.into(),
            login: None,
        }
    }
}

impl std::fmt::Display for Endpoint {
    /// Without a name and a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.base)
    }
}

impl std::fmt::Debug for Endpoint {
    /// Without a name and a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.base, f)
    }
}

/// A user's token for the hub. Only the hub receives it, and messages never show it.
///
/// # Examples
/// ```
/// use xdit_models::hub::Token;
/// assert_eq!(format!("{:?}", Token::new("hf_secret")?), "…");
/// let error = Token::new("hf_\nsecret").unwrap_err().to_string();
/// assert!(error.contains("line break") && !error.contains("secret"), "{error}");
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

impl Token {
    /// Checks the token `text`.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], without the token, if it is empty or contains invalid characters.
    pub fn new(text: &str) -> Result<Self> {
        let found = if text.is_empty() {
            "it is empty"
        } else if text.contains(['\n', '\r']) {
            "it has a line break in it"
        } else if text.contains(char::is_whitespace) {
            "it has a space in it"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "it has characters other than ASCII in it"
        } else {
            return Ok(Self(text.to_owned()));
        };
        let allowed = format!("one word of letters, digits and signs, such as hf_…: {found}");
        Err(Error::invalid("token", "(not shown)", allowed))
    }

    /// Returns the value of the header `Authorization`.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// `path` as part of an address; `/` stays.
pub(super) fn encoded_path(path: &str) -> String {
    utf8_percent_encode(path, ENCODED_PATH).to_string()
}

/// `name` as one part of an address: `/` is encoded too.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

/// Returns scheme, host and port of `url`.
pub(super) fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']);
    &url[..end.map_or(url.len(), |end| host + end)]
}

/// Returns whether `location` contains a scheme or host, and not only a path.
pub(super) fn has_scheme(location: &str) -> bool {
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.contains(['/', '?', '#']))
}

/// Returns the target of `location` in an answer from `url`, or `None` if it is not `http` or `https` or contains a password.
pub(super) fn target(url: &str, location: &str) -> Option<String> {
    let target = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        let (scheme, _) = url.split_once("//")?;
        format!("{scheme}{location}")
    } else {
        location
            .starts_with('/')
            .then(|| format!("{}{location}", origin(url)))?
    };
    let uri: Uri = target.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && !origin(&target).contains('@')).then_some(target)
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
        for nowhere in [
            "z",
            "",
            "file:///etc/passwd",
            "ftp://y/z",
            "http://a:b@y/z",
            "http://",
            "http://y/\u{1}",
            "//",
        ] {
            assert_eq!(to(nowhere), None, "{nowhere:?}");
        }
    }

    #[test]
    fn endpoints() {
        let shown = |text| Endpoint::new(text).map(|it| it.to_string());
        for (given, base) in [
            ("https://hub.example", "https://hub.example"),
            (" http://127.0.0.1:8080/ ", "http://127.0.0.1:8080"),
            ("HTTPS://Mirror.example/hf//", "HTTPS://Mirror.example/hf"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://a:b@c@host/x", "http://host/x"),
        ] {
            assert_eq!(shown(given).unwrap(), base);
        }
        for bad in [
            "hub.example",
            "ftp://hub.example",
            "://x",
            "https://",
            "https:///x",
            "https://a b",
            "https://x?y=1",
            "https://x#y",
            "https://x:0",
            "https://x:99999",
            "https://x:abc",
            "https://x\ny",
            "https://\u{fc}",
            "https://:80",
        ] {
            let error = shown(bad).unwrap_err().to_string();
            assert!(error.contains("http"), "{bad:?}: {error}");
        }
        let error = shown("ftp://me:secret@x").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_password_is_sent_and_not_shown() {
        let hub = Endpoint::new("http://me:p%40ss@hub.example").unwrap();
        // me:p@ss
        assert_eq!(hub.login(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(hub.origin(), "http://hub.example");
        for text in [hub.to_string(), format!("{hub:?}")] {
            assert!(!text.contains("me") && !text.contains("ss"), "{text}");
        }
    }

    #[test]
    fn names_in_addresses() {
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        let path = encoded_path("a b/why?#%/ü+.json");
        assert_eq!(path, "a%20b/why%3F%23%25/%C3%BC%2B.json");
    }
}
