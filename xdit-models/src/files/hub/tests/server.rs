//! A hub on 127.0.0.1 that answers as the real one does: an absolute redirect to a storage host for weights, a relative one
//! for a renamed repository, `ETag`, `X-Linked-Etag`, `X-Repo-Commit`, byte ranges, 401, 403, 404 and 503. The name of a
//! repository says what else it does.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Endpoint, HubOptions};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(super) const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub(super) const FILES: [(&str, &str); 6] = [
    ("README.md", "large and not needed"),
    (
        "model_index.json",
        r#"{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}"#,
    ),
    ("vae/config.json", "{}"),
    ("vae/diffusion_pytorch_model.safetensors", "weights"),
    (
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "half of them",
    ),
    ("flux1-dev.safetensors", "everything in one file"),
];

/// A hub, and the paths that were asked of it.
pub(super) struct TestHub {
    pub(super) endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
    shown: Arc<Mutex<Vec<String>>>,
}

/// What it serves.
struct Served {
    commit: String,
    files: Vec<(String, String)>,
    /// The same machine by another name is another host.
    storage: String,
    asked: Arc<Mutex<Vec<String>>>,
    shown: Arc<Mutex<Vec<String>>>,
}

impl TestHub {
    pub(super) fn start(commit: &str) -> Self {
        Self::with(commit, &FILES)
    }

    pub(super) fn with(commit: &str, files: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hub = Self {
            endpoint,
            asked: Arc::default(),
            shown: Arc::default(),
        };
        let served = Arc::new(Served {
            commit: commit.into(),
            files: files
                .iter()
                .map(|(name, text)| ((*name).into(), (*text).into()))
                .collect(),
            storage: hub.endpoint.replace("127.0.0.1", "localhost"),
            asked: Arc::clone(&hub.asked),
            shown: Arc::clone(&hub.shown),
        });
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || served.serve(stream));
            }
        });
        hub
    }

    /// Deals with this hub in the time that a test has.
    pub(super) fn options(&self, cache: &tempfile::TempDir) -> HubOptions {
        HubOptions {
            endpoint: Endpoint::new(&self.endpoint).unwrap(),
            retry_pause: Duration::from_millis(10),
            ..HubOptions::new(cache.path())
        }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// What the header `Authorization` said.
    pub(super) fn shown(&self) -> Vec<String> {
        std::mem::take(&mut self.shown.lock().unwrap())
    }
}

impl Served {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut range, mut last) = (0, usize::MAX);
        let mut token = false;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim();
            let lower = line.to_ascii_lowercase();
            if let Some(bytes) = lower.strip_prefix("range: bytes=") {
                let (from, to) = bytes.split_once('-').unwrap();
                (range, last) = (from.parse().unwrap(), to.parse().unwrap_or(usize::MAX));
            }
            if lower.starts_with("authorization: ") {
                self.shown
                    .lock()
                    .unwrap()
                    .push(line["authorization: ".len()..].into());
            }
            token |= lower == "authorization: bearer secret";
            if line.is_empty() {
                break;
            }
        }
        self.asked.lock().unwrap().push(path.clone());
        if token && path.starts_with("/storage/") {
            self.asked
                .lock()
                .unwrap()
                .push("the storage host saw the token".into());
        }
        if range > 0 {
            self.asked.lock().unwrap().push(format!("bytes={range}-"));
        }
        let text = self.answer(&path, range, last, token);
        // Of weights, one byte at a time.
        let pause = [
            ("/storage/slow/", 100),
            ("/storage/drip/", 30),
            ("/api/models/org/drip-list/", 30),
        ]
        .iter()
        .find_map(|(start, pause)| path.starts_with(start).then_some(*pause));
        let body = text.find("\r\n\r\n").map_or(text.len(), |at| at + 4);
        match pause {
            Some(pause) if last == usize::MAX => {
                stream.write_all(&text.as_bytes()[..body])?;
                for byte in &text.as_bytes()[body..] {
                    std::thread::sleep(Duration::from_millis(pause));
                    stream.write_all(&[*byte])?;
                }
                Ok(())
            }
            _ => stream.write_all(text.as_bytes()),
        }
    }

    fn content(&self, file: &str) -> Option<&str> {
        let file = percent_encoding::percent_decode_str(file)
            .decode_utf8()
            .unwrap();
        self.files
            .iter()
            .find(|(name, _)| *name == file)
            .map(|(_, content)| content.as_str())
    }

    fn answer(&self, path: &str, range: usize, last: usize, token: bool) -> String {
        let (storage, commit) = (&self.storage, self.commit.as_str());
        let ranged = |body: &str, headers: &str| {
            if body.is_empty() {
                let headers = format!("{headers}Content-Range: bytes */0\r\n");
                return answer("416 Range Not Satisfiable", &headers, "no such range");
            }
            let end = body.len().min(last.saturating_add(1));
            let headers = format!(
                "{headers}Content-Range: bytes {range}-{}/{}\r\n",
                end - 1,
                body.len()
            );
            answer("206 Partial Content", &headers, &body[range.min(end)..end])
        };
        let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
        match parts.as_slice() {
            ["api", "models", _, "down", ..] => {
                answer("503 Service Unavailable", "Retry-After: 0\r\n", "")
            }
            ["api", "models", _, status, ..] if status.starts_with("status-") => answer(
                &format!("{} As Asked", &status[7..]),
                "Retry-After: 0\r\n",
                "",
            ),
            ["api", "models", _, "gone", ..] => answer("404 Not Found", "", ""),
            ["api", "models", _, "secret", ..] => answer("401 Unauthorized", "", ""),
            ["api", "models", _, "portal", ..] => answer("200 OK", "", "<html>log in</html>"),
            ["api", "models", _, name, revision]
                if *revision != "revision/main" && *name != "liar" =>
            {
                answer("404 Not Found", "", "")
            }
            ["api", "models", ..] => {
                let files: Vec<_> = self
                    .files
                    .iter()
                    .map(|(name, _)| serde_json::json!({"rfilename": name}))
                    .collect();
                let listing = serde_json::json!({"sha": commit, "siblings": files});
                answer("200 OK", "", &listing.to_string())
            }
            [_, "gated", ..] if !token => answer("403 Forbidden", "", ""),
            ["org", "old", "resolve", rest @ ..] => {
                let location = format!("Location: /org/new/resolve/{}\r\n", rest.join("/"));
                answer("307 Temporary Redirect", &location, "")
            }
            ["org", "etag", "resolve", _, _] => ranged("{}", "ETag: \"../../evil\"\r\n"),
            [
                "org",
                kind @ ("sha" | "slow" | "drip" | "whole" | "lying"),
                "resolve",
                _,
                file,
            ] if file.ends_with(".safetensors") => {
                let body = self.content(file).unwrap_or("?");
                let etag = match *kind {
                    "sha" => sha256(body),
                    _ => etag(file, body),
                };
                let headers = format!(
                    "Location: {storage}/storage/{kind}/{file}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n",
                    body.len()
                );
                answer("302 Found", &headers, "")
            }
            ["org", _, "resolve", at, file] if *at == commit => match self.content(file) {
                None => answer("404 Not Found", "", ""),
                Some(body) if file.ends_with(".safetensors") => {
                    let headers = format!(
                        "Location: {storage}/storage/plain/{file}\r\nX-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{}\"\r\n",
                        etag(file, body)
                    );
                    answer("302 Found", &headers, "")
                }
                Some(body) => ranged(
                    body,
                    &format!(
                        "X-Repo-Commit: {commit}\r\nETag: \"{}\"\r\n",
                        etag(file, body)
                    ),
                ),
            },
            // No ranges, and another range than asked for.
            ["storage", "whole", file @ ..] => {
                let body = self.content(&file.join("/")).unwrap_or("?");
                answer("200 OK", "", body)
            }
            ["storage", "lying", ..] => answer(
                "206 Partial Content",
                "Content-Range: bytes 5-9/100\r\n",
                "other",
            ),
            ["storage", _, file @ ..] => ranged(
                self.content(&file.join("/")).unwrap_or("?"),
                "ETag: \"other\"\r\n",
            ),
            _ => answer("404 Not Found", "", ""),
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// A name that says what it names, as no hash does.
fn etag(file: &str, body: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = file.chars().map(plain).collect();
    format!("{name}-{}", body.len())
}

pub(super) fn sha256(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
