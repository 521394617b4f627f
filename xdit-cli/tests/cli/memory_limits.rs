//! Limits of address space, from the needs of the start-up to enough: a run succeeds or is out of memory, and ends in no other
//! way.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{Outcome, names, outcome};
use crate::sd3::golden;

/// Runs the program where it may map so many KiB.
fn limited(folder: &Path, kib: u64, words: &[&str]) -> (Outcome, bool) {
    let output = Command::new("sh")
        .env_clear()
        .env("RAYON_NUM_THREADS", "2")
        .env("HF_HUB_OFFLINE", "1")
        .args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_xdit-cli"))
        .args(words)
        .current_dir(folder)
        .output();
    let signalled = output.as_ref().is_ok_and(|o| o.status.code().is_none());
    (outcome(output), signalled)
}

/// The least that the program starts with, in KiB.
fn start(folder: &Path) -> u64 {
    let starts = |kib: &u64| limited(folder, *kib, &["--version"]).0.code == Some(0);
    let mut kib = 4096;
    while !starts(&kib) {
        kib += kib / 32;
        assert!(kib < 1 << 22, "the program does not start");
    }
    kib
}

/// One step of `model` under every limit of a geometric row; what is drawn at the end is drawn.
fn sweep(model: &str, more: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = golden(model).display().to_string();
    let words = format!(
        "generate --prompt circle --height 64 --width 64 --num-inference-steps 1 --output a.png --trace t.json {more} --model"
    );
    let words: Vec<&str> = words.split_whitespace().chain([path.as_str()]).collect();
    let mut kib = start(folder.path());
    let mut refused = 0;
    loop {
        let (outcome, signalled) = limited(folder.path(), kib, &words);
        let told = format!("{model} {more}, {kib} KiB: {outcome:?}");
        assert!(!signalled, "{told}");
        if outcome.code == Some(0) {
            break;
        }
        assert_eq!(outcome.code, Some(5), "{told}");
        let lines = outcome.stderr.lines();
        let errors: Vec<&str> = lines
            .filter(|line| !line.starts_with("warning: "))
            .collect();
        assert!(
            matches!(errors[..], [one] if one.starts_with("error: ") && one.contains("out of memory")),
            "{told}"
        );
        // A trace is whole or not there; there is no picture, and nothing that is partial.
        let left = names(folder.path());
        assert!(left.is_empty() || left == ["t.json"], "{left:?}, {told}");
        if left == ["t.json"] {
            let trace = fs::read(folder.path().join("t.json")).unwrap();
            assert!(
                serde_json::from_slice::<serde_json::Value>(&trace).is_ok(),
                "{told}"
            );
            fs::remove_file(folder.path().join("t.json")).unwrap();
        }
        refused += 1;
        kib += kib / 40;
        assert!(kib < 4 << 20, "4 GiB are not enough: {told}");
    }
    println!("{model} {more}: refused under {refused} limits, drawn with {kib} KiB");
    assert!(refused >= 10, "{refused} limits only");
    assert_eq!(names(folder.path()), ["a.png", "t.json"]);
}

#[test]
fn flux_on_one_rank() {
    sweep("flux-dev", "");
}

#[test]
fn flux_on_a_hybrid() {
    sweep(
        "flux-dev",
        "--ulysses-degree 2 --pipefusion-parallel-degree 2",
    );
}

#[test]
fn sd3_on_one_rank() {
    sweep("sd35-medium", "");
}

#[test]
fn sd3_on_a_hybrid() {
    sweep(
        "sd35-medium",
        "--cfg-degree 2 --pipefusion-parallel-degree 2",
    );
}

#[test]
fn hunyuandit_on_one_rank() {
    sweep("hunyuan-v1.2", "--no-use-resolution-binning");
}

#[test]
fn hunyuandit_on_a_hybrid() {
    sweep(
        "hunyuan-v1.2",
        "--no-use-resolution-binning --cfg-degree 2 --ulysses-degree 2 --num-pipeline-patch 2",
    );
}
