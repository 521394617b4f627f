//! `devices` and `--device` on a machine whose driver does not work, whatever the machine.

use std::path::Path;

use crate::program::{Outcome, command, outcome, small};

/// Runs the program where the driver's library is a file that is none.
fn without_gpu(folder: &Path, words: &[&str]) -> Outcome {
    let library = folder.join("libcuda.so.1");
    std::fs::write(library, "no library").unwrap();
    let mut command = command();
    command.args(words).current_dir(folder);
    outcome(command.env("LD_LIBRARY_PATH", folder).output())
}

const REASON: &str = "NVIDIA's driver is not installed: libcuda.so.1 does not open (";

#[test]
fn the_processor_is_listed_and_one_line_says_why_there_is_no_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let text = without_gpu(folder.path(), &["devices", "--cpu-tier", "portable"])
        .succeeded()
        .stdout;
    let cpu = text.lines().find(|line| line.starts_with("cpu "));
    let cpu = cpu.unwrap_or_else(|| panic!("{text}"));
    assert!(
        cpu.contains(" portable ") && cpu.ends_with("2 threads"),
        "{text}"
    );
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(&format!("no GPU: {REASON}")), "{text}");
}

#[test]
fn as_json() {
    let folder = tempfile::tempdir().unwrap();
    let json = without_gpu(folder.path(), &["devices", "--json"])
        .succeeded()
        .json();
    assert_eq!(json["cpu"]["threads"], 2);
    let tiers = json["cpu"]["tiers"].as_array().unwrap();
    assert!(tiers.contains(&json["cpu"]["tier"]), "{json}");
    assert!(json["cpu"]["memory"].as_u64() >= json["cpu"]["available"].as_u64());
    assert_eq!(json["gpus"].as_array().map(Vec::len), Some(0));
    assert!(
        json["no_gpu"].as_str().unwrap().starts_with(REASON),
        "{json}"
    );
}

#[test]
fn cuda_fails_with_the_reason_and_auto_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for device in ["cuda", "cuda:0"] {
        let run = without_gpu(folder.path(), &small("a circle", &["--device", device]));
        assert_eq!(run.code, Some(2), "{run:?}");
        let start = format!("error: --device cuda:0: {REASON}");
        assert!(run.stderr.starts_with(&start), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        let plan = without_gpu(folder.path(), &["plan", "--device", device]);
        assert_eq!(plan.code, Some(2), "{plan:?}");
    }
    let run = without_gpu(
        folder.path(),
        &small("a circle", &["--device", "auto", "-v"]),
    );
    let run = run.succeeded();
    let told = "--device auto is the processor";
    assert!(run.stderr.contains(told), "{run:?}");
}
