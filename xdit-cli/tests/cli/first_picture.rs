//! The picture in the README of the workspace is the one that its command draws.

use std::fs;
use std::path::{Path, PathBuf};

use crate::generate::pixels;
use crate::picture_record::record;
use crate::program::run;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_readme_shows_what_its_command_draws() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let command = "    cargo run --release -p xdit-cli -- generate --prompt \"";
    let prompt = readme.lines().find_map(|line| {
        line.strip_prefix(command)
            .and_then(|rest| rest.strip_suffix('"'))
    });
    let prompt = prompt.expect("README.md has the command");
    let shown = root().join("docs/first-picture.png");
    assert!(readme.contains("docs/first-picture.png"));
    assert_eq!(
        record(&shown)["request"]["prompt"],
        serde_json::json!([prompt])
    );

    let folder = tempfile::tempdir().unwrap();
    let words = ["generate", "--prompt", prompt, "--output", "now.png"];
    run(folder.path(), words).succeeded();
    let (width, height, shown) = pixels(&shown);
    let now = pixels(&folder.path().join("now.png"));
    assert_eq!((width, height), (now.0, now.1));
    // Another instruction tier rounds differently in the last bits: a value may move by a level.
    let farthest = shown.iter().zip(&now.2).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(farthest.unwrap() <= 2, "{farthest:?} levels");
}
