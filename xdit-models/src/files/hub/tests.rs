//! Against a hub on this machine.

mod cached;
mod headers;
mod hostile;
mod server;
mod unlucky;

use std::net::TcpListener;

use super::*;
use server::{COMMIT, NEXT_COMMIT, TestHub, sha256};

fn token() -> Option<Token> {
    Some(Token::new("secret").unwrap())
}

fn nobody() -> Endpoint {
    Endpoint::new("http://127.0.0.1:9").unwrap()
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
        endpoint: nobody(),
        ..hub.options(&cache)
    };
    assert_eq!(get("org/new", None, &unreachable).unwrap().commit, COMMIT);
    let error = get("org/other", None, &unreachable).unwrap_err();
    assert!(matches!(error, Error::Hub { .. }), "{error}");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = HubOptions {
        token: token(),
        ..hub.options(&cache)
    };
    // This one answers only those who have the token.
    get("org/gated", None, &options).unwrap();
    let asked = hub.asked();
    assert!(asked.iter().any(|path| path.starts_with("/storage/")));
    assert!(
        !asked.iter().any(|path| path.contains("token")),
        "{asked:?}"
    );
}

#[test]
fn what_is_refused_by_its_configurations_is_not_downloaded() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let mut seen = Vec::new();
    let mut refuse = |source: &ModelSource| {
        seen = source.list()?;
        Err(Error::invalid("height", 0, "at least 16"))
    };
    let options = hub.options(&cache);
    let refused = snapshot_checked("org/new", None, None, &options, &mut refuse, &mut |_| {});
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
    assert_eq!(seen, ["model_index.json", "vae/config.json"]);
    let asked = hub.asked();
    assert!(
        !asked.iter().any(|path| path.contains("safetensors")),
        "{asked:?}"
    );
}

#[test]
fn damaged_weights_are_not_kept_and_broken_downloads_taken_up() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let folder = cache.path().join("models--org--sha");
    // Of an earlier run, and not of this file.
    let etag = sha256("weights");
    std::fs::create_dir_all(folder.join("blobs")).unwrap();
    let part = folder.join(format!("blobs/{etag}.part"));
    std::fs::write(&part, "wEi").unwrap();
    let healed = get("org/sha", None, &hub.options(&cache)).unwrap();
    let weights = "vae/diffusion_pytorch_model.safetensors";
    assert_eq!(&*healed.source.read(weights, 9).unwrap(), b"weights");
    assert!(!part.exists());
    std::fs::remove_file(folder.join("blobs").join(&etag)).unwrap();
    std::fs::write(&part, "wei").unwrap();
    hub.asked();
    let whole = get("org/sha", None, &hub.options(&cache)).unwrap();
    assert_eq!(&*whole.source.read(weights, 9).unwrap(), b"weights");
    assert!(
        hub.asked().contains(&"bytes=3-".to_owned()),
        "all of it came again"
    );
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    let (listener, cache) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let options = HubOptions {
        endpoint: Endpoint::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap(),
        etag_timeout: std::time::Duration::from_millis(200),
        ..HubOptions::new(cache.path())
    };
    let error = get("org/new", None, &options).unwrap_err();
    assert!(matches!(error, Error::Hub { .. }), "{error}");
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[test]
fn a_hub_that_is_down_does_not_hide_the_cache() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let error = get("org/down", None, &hub.options(&cache)).unwrap_err();
    assert!(error.to_string().contains("HTTP 503"), "{error}");
    get("org/new", None, &hub.options(&cache)).unwrap();
    let folder = |name: &str| cache.path().join(format!("models--org--{name}"));
    std::fs::rename(folder("new"), folder("down")).unwrap();
    assert_eq!(
        get("org/down", None, &hub.options(&cache)).unwrap().commit,
        COMMIT
    );
}

#[test]
fn a_plan_needs_no_weights() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = HubOptions {
        weights: HubWeights::None,
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
        token: token(),
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
        "a--b/c",
        "a/b--c",
        "a/",
        ".hidden/x",
        "a\\b",
    ] {
        let error = get(id, None, &hub.options(&cache)).unwrap_err();
        assert!(
            matches!(error, Error::ModelNotFound { .. }),
            "{id}: {error}"
        );
    }
    for revision in [
        "../main", "../../x", "a/../b", "/x", "a//b", "a/", "", ".", "a b", "-x", "a\\b",
    ] {
        let options = hub.options(&cache);
        let refused = snapshot("a/b", Some(revision), None, &options, &mut |_| {});
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Error::InvalidRequest { .. }),
            "{revision}: {error}"
        );
    }
    assert!(hub.asked().is_empty(), "a name that is no id was asked for");
}
