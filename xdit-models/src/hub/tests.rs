//! Against a hub on 127.0.0.1 that answers as the real one does: an absolute redirect to a storage host for weights, a
//! relative one for a renamed repository, `ETag`, `X-Linked-Etag`, `X-Repo-Commit`, byte ranges, 401, 403 and 404.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
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
struct TestHub {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestHub {
    fn start(commit: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, host) = (Arc::clone(&asked), endpoint.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &host, commit, &log);
            }
        });
        Self { endpoint, asked }
    }

    fn options(&self, cache: &tempfile::TempDir) -> HubOptions {
        HubOptions {
            endpoint: self.endpoint.clone(),
            ..HubOptions::new(cache.path())
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(
    mut stream: TcpStream,
    host: &str,
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
    let text = match parts.as_slice() {
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
        ["org", _, "resolve", "main", file] => match content(file) {
            None => answer("404 Not Found", "", ""),
            Some(body) if file.ends_with(".safetensors") => {
                let headers = format!(
                    "Location: {host}/storage/{file}\r\nX-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{}\"\r\n",
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

fn get(id: &str, variant: Option<&str>, options: &HubOptions) -> Result<Snapshot> {
    snapshot(id, None, variant, options, &mut |_| {})
}

#[test]
fn a_pipeline_is_downloaded_once_and_then_found_offline() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let mut seen = Vec::new();
    let first = snapshot(
        "org/new",
        None,
        None,
        &hub.options(&cache),
        &mut |progress| {
            seen.push((progress.file.to_owned(), progress.done, progress.total));
        },
    )
    .unwrap();
    assert_eq!(first.commit, COMMIT);
    let files = [
        "model_index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(first.source.list().unwrap(), files);
    assert_eq!(&*first.source.read(files[2], 100).unwrap(), b"weights");
    assert!(seen.contains(&(files[2].to_owned(), 7, 7)), "{seen:?}");
    assert!(
        !hub.asked()
            .iter()
            .any(|path| path.contains("flux1-dev") || path.contains("README"))
    );

    get("org/new", None, &hub.options(&cache)).unwrap();
    assert_eq!(
        hub.asked(),
        ["/api/models/org/new/revision/main"],
        "the second run asks for the commit only"
    );

    let offline = HubOptions {
        offline: true,
        ..hub.options(&cache)
    };
    for revision in [None, Some("main"), Some(COMMIT)] {
        let found = snapshot("org/new", revision, None, &offline, &mut |_| {}).unwrap();
        assert_eq!(found.source.list().unwrap(), files);
    }
    assert!(hub.asked().is_empty(), "offline asked the hub");
    let unreachable = HubOptions {
        endpoint: "http://127.0.0.1:9".into(),
        ..hub.options(&cache)
    };
    assert_eq!(get("org/new", None, &unreachable).unwrap().commit, COMMIT);
    let error = get("org/other", None, &unreachable).unwrap_err();
    assert!(matches!(error, Error::Hub { .. }), "{error}");
}

#[test]
fn a_plan_needs_no_weights() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = HubOptions {
        configurations_only: true,
        ..hub.options(&cache)
    };
    let plan = get("org/new", None, &options).unwrap();
    let files = ["model_index.json", "vae/config.json"];
    assert_eq!(plan.source.list().unwrap(), files);
    // What is missing comes when it is needed.
    let whole = get("org/new", None, &hub.options(&cache)).unwrap();
    assert_eq!(whole.source.list().unwrap().len(), 3);
}

#[test]
fn a_new_commit_takes_over_unchanged_files() {
    let cache = tempfile::tempdir().unwrap();
    get("org/new", None, &TestHub::start(COMMIT).options(&cache)).unwrap();
    let hub = TestHub::start(NEXT_COMMIT);
    let second = get("org/new", None, &hub.options(&cache)).unwrap();
    assert_eq!(second.commit, NEXT_COMMIT);
    assert_eq!(
        &*second
            .source
            .read("vae/diffusion_pytorch_model.safetensors", 100)
            .unwrap(),
        b"weights"
    );
    // The length is asked for, the content is not fetched again.
    let fetched = hub
        .asked()
        .iter()
        .filter(|path| path.starts_with("/storage/"))
        .count();
    assert_eq!(fetched, 1);
}

#[test]
fn variants_and_renamed_repositories() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let half = get("org/old", Some("fp16"), &hub.options(&cache)).unwrap();
    let weights = "vae/diffusion_pytorch_model.fp16.safetensors";
    assert_eq!(
        half.source.list().unwrap(),
        ["model_index.json", "vae/config.json", weights]
    );
    assert_eq!(&*half.source.read(weights, 100).unwrap(), b"half of them");
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = hub.options(&cache);
    let error = get("org/gated", None, &options).unwrap_err();
    assert!(matches!(error, Error::Gated { status: 403, .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("open {}/org/gated in a browser", hub.endpoint)),
        "{error}"
    );
    let with_token = HubOptions {
        token: Some("secret".into()),
        ..options.clone()
    };
    assert!(
        !format!("{with_token:?}").contains("secret"),
        "a token in the log"
    );
    let error = get("org/gone", None, &options).unwrap_err().to_string();
    assert!(
        error.starts_with("model not found: org/gone at main: HTTP 404"),
        "{error}"
    );
    let error = get("org/secret", None, &options).unwrap_err().to_string();
    assert!(
        error.starts_with("model not found: org/secret at main: HTTP 401")
            && error.contains("HF_TOKEN"),
        "{error}"
    );
    let error = snapshot("org/new", Some("v9"), None, &options, &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("model not found: org/new at v9: HTTP 404"),
        "{error}"
    );
    let offline = HubOptions {
        offline: true,
        ..options
    };
    let error = get("org/never", None, &offline).unwrap_err().to_string();
    assert!(
        error.starts_with("model not found: org/never at main: offline"),
        "{error}"
    );
}

#[test]
fn names_that_are_no_ids_go_nowhere() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    for id in [
        "",
        "a/b/c",
        "../x",
        "a/..",
        "/etc",
        "a b/c",
        "a/b?x",
        ".hidden/x",
        "a\\b",
    ] {
        let error = get(id, None, &hub.options(&cache)).unwrap_err();
        assert!(
            matches!(error, Error::ModelNotFound { .. }),
            "{id}: {error}"
        );
    }
    let error = snapshot(
        "a/b",
        Some("../main"),
        None,
        &hub.options(&cache),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
    assert!(hub.asked().is_empty(), "a name that is no id was asked for");
}
