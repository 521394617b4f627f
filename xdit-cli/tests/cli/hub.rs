//! Pipelines from the hub's cache; no network.
#![cfg(all(feature = "hub", unix))]

use std::fs;
use std::path::Path;

use crate::program::{command, demo, outcome, small};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache as huggingface_hub leaves it, in which `organisation/shapes` is the demo.
fn cache(folder: &Path) {
    let repository = folder.join("hub/models--organisation--shapes");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(repository.join("snapshots")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    let demo = demo().canonicalize().unwrap();
    std::os::unix::fs::symlink(demo, repository.join("snapshots").join(COMMIT)).unwrap();
}

#[test]
fn a_cached_repository_runs_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    cache(folder.path());
    let run = |words: &[&str]| {
        let mut command = command();
        command
            .env("HF_HOME", folder.path())
            .args(words)
            .current_dir(folder.path());
        outcome(command.output())
    };
    let words = small(
        "a red circle",
        &[
            "--model",
            "organisation/shapes",
            "--output",
            "a.png",
            "--json",
        ],
    );
    let json = run(&words).succeeded().json();
    assert_eq!(json["model"]["name"], "organisation/shapes");
    assert_eq!(json["model"]["revision"], COMMIT);
    run(&["replay", "a.png"]).succeeded();
    run(&["replay", "a.png", "--model", "demo"]).succeeded();
    run(&["info", "organisation/shapes", "--revision", COMMIT]).succeeded();
    let other = run(&["info", "organisation/shapes", "--revision", "v2"]);
    assert_eq!(other.code, Some(3), "{other:?}");
    assert!(
        other.stderr.contains("v2: offline, and not in ")
            && other.stderr.ends_with(
                "; HF_HUB_OFFLINE is set; download it: HF_HUB_OFFLINE=0 xdit-cli download organisation/shapes --revision v2\n"
            ),
        "{other:?}"
    );
}

#[test]
fn the_cache_may_be_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    cache(folder.path());
    let hub = folder.path().join("hub").display().to_string();
    let run = |words: &[&str]| outcome(command().args(words).output());
    run(&["info", "organisation/shapes", "--download_dir", &hub]).succeeded();
    let refused = run(&["info", "demo", "--download_dir", &hub]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}
