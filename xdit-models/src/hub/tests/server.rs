//! A hub on 127.0.0.1 that answers as the real one does: an absolute redirect to a storage host for weights, a relative one
//! for a renamed repository, `ETag`, `X-Linked-Etag`, `X-Repo-Commit`, byte ranges, 401, 403, 404 and 503.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::HubOptions;

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(super) const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const FILES: [(&str, &str); 6] = [
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
}

impl TestHub {
    pub(super) fn start(commit: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        // The same machine by another name is another host.
        let storage = endpoint.replace("127.0.0.1", "localhost");
        let log = Arc::clone(&asked);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &storage, commit, &log);
            }
        });
        Self { endpoint, asked }
    }

    pub(super) fn options(&self, cache: &tempfile::TempDir) -> HubOptions {
        HubOptions {
            endpoint: self.endpoint.clone(),
            ..HubOptions::new(cache.path())
        }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(
    mut stream: TcpStream,
    storage: &str,
    commit: &str,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = 0;
    let mut last = usize::MAX;
    let mut token = false;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-').unwrap();
            (range, last) = (from.parse().unwrap(), to.parse().unwrap_or(usize::MAX));
        }
        token |= line == "authorization: bearer secret";
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push(path.clone());
    if token && path.starts_with("/storage/") {
        log.lock()
            .unwrap()
            .push("the storage host saw the token".into());
    }
    let answer = |status: &str, headers: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
    };
    let content = |file: &str| {
        FILES
            .iter()
            .find(|(name, _)| *name == file)
            .map(|(_, content)| *content)
    };
    let ranged = |body: &str, headers: &str| {
        let end = body.len().min(last.saturating_add(1));
        let headers = format!(
            "{headers}Content-Range: bytes {range}-{}/{}\r\n",
            end - 1,
            body.len()
        );
        answer("206 Partial Content", &headers, &body[range.min(end)..end])
    };
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
    if range > 0 {
        log.lock().unwrap().push(format!("bytes={range}-"));
    }
    let text = match parts.as_slice() {
        ["api", "models", _, "down", ..] => {
            answer("503 Service Unavailable", "Retry-After: 0\r\n", "")
        }
        ["api", "models", _, "gone", ..] => answer("404 Not Found", "", ""),
        ["api", "models", _, "secret", ..] => answer("401 Unauthorized", "", ""),
        ["api", "models", _, _, revision] if *revision != "revision/main" => {
            answer("404 Not Found", "", "")
        }
        ["api", "models", ..] => {
            let files: Vec<_> = FILES
                .iter()
                .map(|(name, _)| serde_json::json!({"rfilename": name}))
                .collect();
            answer(
                "200 OK",
                "",
                &serde_json::json!({"sha": commit, "siblings": files}).to_string(),
            )
        }
        [_, "gated", ..] if !token => answer("403 Forbidden", "", ""),
        ["org", "old", "resolve", rest @ ..] => {
            let location = format!("Location: /org/new/resolve/{}\r\n", rest.join("/"));
            answer("307 Temporary Redirect", &location, "")
        }
        ["org", "sha", "resolve", _, file] if file.ends_with(".safetensors") => {
            let body = content(file).unwrap_or("?");
            let headers = format!(
                "Location: {storage}/storage/{file}\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n",
                sha256(body),
                body.len()
            );
            answer("302 Found", &headers, "")
        }
        ["org", _, "resolve", at, file] if *at == commit => match content(file) {
            None => answer("404 Not Found", "", ""),
            Some(body) if file.ends_with(".safetensors") => {
                let headers = format!(
                    "Location: {storage}/storage/{file}\r\nX-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{}\"\r\n",
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
        ["storage", ..] => ranged(
            content(path.trim_start_matches("/storage/")).unwrap_or("?"),
            "ETag: \"other\"\r\n",
        ),
        _ => answer("404 Not Found", "", ""),
    };
    stream.write_all(text.as_bytes())
}

fn etag(file: &str, body: &str) -> String {
    format!("{}-{}", file.replace('/', "_"), body.len())
}

pub(super) fn sha256(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
