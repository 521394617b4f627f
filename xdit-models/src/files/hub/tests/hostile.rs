//! Hubs and repositories that mean harm: whatever they name, nothing is made outside the cache, and nothing before the refusal.

use super::*;

/// Every file and folder below `folder`.
fn tree(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

/// What is said of a repository of these files, which must leave nothing.
fn refused(id: &str, files: &[(&str, &str)]) -> String {
    let outside = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir_in(outside.path()).unwrap();
    let hub = TestHub::with(COMMIT, files);
    let error = get(id, None, &hub.options(&cache)).unwrap_err();
    assert!(matches!(error, Error::Hub { .. }), "{error}");
    let left = tree(outside.path());
    assert_eq!(left.len(), 1, "made before the refusal: {left:?}");
    let error = error.to_string();
    assert!(
        !error.contains(char::is_control) && error.len() < 1000,
        "{error:?}"
    );
    error
}

#[test]
fn components_that_lead_elsewhere_are_refused_before_anything_is_made() {
    let absolute = std::env::temp_dir().join("xdit-hub-must-not-make-this");
    let absolute = absolute.to_str().unwrap();
    for name in [
        "../../../../X",
        "..",
        ".",
        "",
        absolute,
        "a/b",
        "a\\b",
        "C:\\X",
        "x\u{1b}[31m",
        "a\0b",
    ] {
        let index = serde_json::json!({"_class_name": "FluxPipeline", name: ["diffusers", "AutoencoderKL"]});
        let index = index.to_string();
        // The list alone cannot tell: the file is where it may be.
        let error = refused(
            "org/new",
            &[("model_index.json", &index), ("vae/config.json", "{}")],
        );
        assert!(
            error.contains("model_index.json: the component"),
            "{name:?}: {error}"
        );
    }
    assert!(!std::path::Path::new(absolute).exists());
}

#[test]
fn files_that_lead_elsewhere_are_refused_before_anything_is_made() {
    let index = r#"{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}"#;
    let deep = "x/".repeat(100) + "x.json";
    for name in [
        "../../../../X/config.json",
        "vae/../../../X.json",
        "/tmp/xdit-hub-must-not-make-this",
        "",
        "vae/",
        "vae//config.json",
        "vae\\..\\X.json",
        "C:/X.json",
        "vae/\u{1b}]0;x\u{7}.json",
        "vae/a\nb.json",
        &deep,
    ] {
        let error = refused("org/new", &[("model_index.json", index), (name, "{}")]);
        assert!(
            error.contains("the list of files names"),
            "{name:?}: {error}"
        );
    }
}

#[test]
fn odd_commits_contents_and_indexes_are_refused_before_anything_is_made() {
    let files = server::FILES;
    assert!(refused("org/etag", &files).contains("odd etag `../../evil`"));
    for index in ["[]", "not JSON", &"[".repeat(100_000), &" ".repeat(2 << 20)] {
        let hub = TestHub::with(COMMIT, &[("model_index.json", index)]);
        let cache = tempfile::tempdir().unwrap();
        get("org/new", None, &hub.options(&cache)).unwrap_err();
        assert_eq!(tree(cache.path()), [""; 0]);
    }
    for commit in ["", "../../x", "main", "0123/..", &"a".repeat(65)] {
        let (hub, cache) = (TestHub::with(commit, &files), tempfile::tempdir().unwrap());
        let error = get("org/new", None, &hub.options(&cache)).unwrap_err();
        assert!(error.to_string().contains("commit `"), "{commit}: {error}");
        assert_eq!(tree(cache.path()), [""; 0]);
    }
}

#[test]
fn a_list_of_a_hundred_thousand_files_takes_its_time_once() {
    let index = r#"{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}"#;
    let names: Vec<String> = (0..100_000).map(|i| format!("vae/{i}.bin")).collect();
    let files: Vec<(&str, &str)> = [("model_index.json", index), ("vae/config.json", "{}")]
        .into_iter()
        // Twice the same name is one file.
        .chain(names.iter().chain(&names).map(|name| (name.as_str(), "")))
        .collect();
    let (hub, cache) = (TestHub::with(COMMIT, &files), tempfile::tempdir().unwrap());
    let found = get("org/new", None, &hub.options(&cache)).unwrap();
    assert_eq!(
        found.source.list().unwrap(),
        ["model_index.json", "vae/config.json"]
    );
}

#[test]
fn a_password_goes_to_the_hub_alone_and_into_no_message() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let address = hub.endpoint.replace("://", "://me:hunter2@");
    let options = HubOptions {
        endpoint: Endpoint::new(&address).unwrap(),
        ..hub.options(&cache)
    };
    get("org/new", None, &options).unwrap();
    // me:hunter2; the storage host, which is asked twice, sees none of it.
    let shown = hub.shown();
    assert!(
        shown.iter().all(|it| it == "Basic bWU6aHVudGVyMg=="),
        "{shown:?}"
    );
    let storage = hub
        .asked()
        .iter()
        .filter(|path| path.starts_with("/storage/"))
        .count();
    assert_eq!(storage, 2);
    // The list; length and content of two small files; the redirect of weights for both.
    assert_eq!(shown.len(), 1 + 4 + 2);
    for id in ["org/gone", "org/gated", "org/down"] {
        let error = get(id, None, &options).unwrap_err().to_string();
        assert!(
            !error.contains("hunter2") && !error.contains("bWU6"),
            "{error}"
        );
    }
    assert!(!format!("{options:?}").contains("hunter2"));
}
