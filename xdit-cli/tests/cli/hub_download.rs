//! What `info` and `download` bring from a hub.

use std::fs;
use std::path::Path;

use crate::fake_hub::FakeHub;
use crate::program::{Outcome, demo, outcome, run as run_in, small};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const ID: &str = "organisation/shapes";

fn run(hub: &FakeHub, home: &Path, words: &[&str]) -> Outcome {
    outcome(hub.command(home).args(words).output())
}

/// Bytes of all files in the folder and below it.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.path().is_dir() {
        true => bytes_in(&entry.path()),
        false => fs::symlink_metadata(entry.path()).map_or(0, |it| it.len()),
    });
    bytes.sum()
}

#[test]
fn info_reads_the_headers_of_weights_alone() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let told = run(&hub, home.path(), &["info", ID, "--json"])
        .succeeded()
        .json();
    let folder = demo().display().to_string();
    let local = run_in(home.path(), ["info", &folder, "--json"]).json();
    let weights: u64 = local["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(told["components"], local["components"]);
    assert_eq!(told["memory"]["weights"], local["memory"]["weights"]);
    // Four components have weights; a file of each is asked for 64 KiB, and the rest is small.
    assert!(weights > 8_000_000, "{weights}");
    assert!(hub.sent() < 600_000, "{} bytes were sent", hub.sent());
    assert!(bytes_in(home.path()) < 300_000, "weights are in the cache");
    // A picture still needs them.
    let offline = |words: &[&str]| {
        let mut command = hub.command(home.path());
        outcome(command.env("HF_HUB_OFFLINE", "1").args(words).output())
    };
    let words = small("a", &["--model", ID, "--output", "a.png"]);
    assert_eq!(offline(&words).code, Some(3));
}

#[test]
fn download_says_how_much_and_where_and_brings_all() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let first = run(&hub, home.path(), &["download", ID]).succeeded();
    let cache = home.path().join("hub");
    let announced = format!(" MiB of {ID} into {}\n", cache.display());
    assert!(
        first.stderr.starts_with("downloading ") && first.stderr.ends_with(&announced),
        "{first:?}"
    );
    let snapshot = cache.join(format!("models--organisation--shapes/snapshots/{COMMIT}"));
    let ends = format!(" MiB in {}\n", snapshot.display());
    let start = format!("{ID} at {COMMIT}: 14 files, ");
    assert!(
        first.stdout.starts_with(&start) && first.stdout.ends_with(&ends),
        "{first:?}"
    );
    let sent = hub.sent();
    let again = run(&hub, home.path(), &["download", ID, "--json"]).succeeded();
    assert_eq!(again.stderr, "");
    let told = again.json();
    assert_eq!(told["revision"], COMMIT);
    assert_eq!(told["files"].as_array().unwrap().len(), 14);
    assert!(told["bytes"].as_u64().unwrap() > 8_000_000);
    // Only the list of files came again.
    assert!(hub.sent() - sent < 5_000, "{}", hub.sent() - sent);
    let mut command = hub.command(home.path());
    let words = small("a", &["--model", ID, "--output", "a.png"]);
    outcome(command.env("HF_HUB_OFFLINE", "1").args(words).output()).succeeded();
}

#[test]
fn what_is_here_already_is_not_downloaded() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("a/b")).unwrap();
    for name in ["demo", "a/b", "nowhere"] {
        let refused = run_in(home.path(), ["download", name]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(
            refused
                .stderr
                .starts_with(&format!("error: download {name}: ")),
            "{refused:?}"
        );
    }
}

/// One of several files that fails ends the others, and is named.
#[test]
fn a_file_that_the_hub_refuses_is_named() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let file = "vae/diffusion_pytorch_model.safetensors";
    hub.refuse(file);
    let refused = run(&hub, home.path(), &["download", ID]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(file), "{refused:?}");
    assert_eq!(refused.stderr.matches("error: ").count(), 1, "{refused:?}");
}
