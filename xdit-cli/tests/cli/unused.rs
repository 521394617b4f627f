//! Flags that change nothing are told: one line each on standard error, and in `warnings` of `--json`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Outcome, run};
use crate::sd3::golden;

const SMALL: &str = "--num-inference-steps 2 --max-sequence-length 13";
/// What the demo says of this size, whatever the flags.
const SIZE: &str = "--height 32 --width 32";

fn warnings(json: &Value) -> Vec<String> {
    let warnings = json["warnings"].as_array().unwrap().iter();
    warnings
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

fn on(folder: &Path, command: &str, model: &str, more: &str) -> Outcome {
    let model = match model {
        "demo" => model.to_owned(),
        name => golden(name).display().to_string(),
    };
    let words = format!("{command} --json --model {model} {SMALL} {SIZE} {more}");
    run(folder, words.split_whitespace()).succeeded()
}

#[test]
fn each_is_one_line_and_an_entry_of_json() {
    let folder = tempfile::tempdir().unwrap();
    for (model, flags, word) in [
        (
            "flux-schnell",
            "--guidance-scale 7",
            "--guidance-scale has no effect",
        ),
        (
            "flux-dev",
            "--negative-prompt b",
            "--negative-prompt has no effect",
        ),
        (
            "flux-dev",
            "--true-cfg-scale 3",
            "--true-cfg-scale has no effect",
        ),
        (
            "sd35-medium",
            "--negative-prompt b --guidance-scale 1",
            "--negative-prompt has no",
        ),
        (
            "flux-dev",
            "--sigmas 1,0.7,0.5",
            "--num-inference-steps has no effect",
        ),
        (
            "flux-dev",
            "--data-parallel-degree 2",
            "1 replica without work, because replicas share 1 image",
        ),
        (
            "flux-dev",
            "--ulysses-degree 3",
            "3 ranks share 2 threads: slower than one rank",
        ),
        ("flux-dev", "--max-drift 0.1", "--max-drift has no effect"),
        (
            "flux-dev",
            "--warmup-steps 2",
            "--warmup-steps has no effect",
        ),
        (
            "flux-dev",
            "--pipefusion-balance memory",
            "--pipefusion-balance has no effect",
        ),
        (
            "flux-dev",
            "--no-parallel-vae",
            "--no-parallel-vae has no effect",
        ),
        (
            "flux-dev",
            "--rank-timeout 9",
            "--rank-timeout has no effect",
        ),
        (
            "demo",
            "",
            "the demo was trained on pictures of 256 × 256 only",
        ),
    ] {
        for command in ["generate --prompt a --output a.png", "plan --prompt a"] {
            let told = on(folder.path(), command, model, flags);
            let found = warnings(&told.json());
            assert_eq!(found.len(), 1, "{model} {flags}: {told:?}");
            assert!(found[0].contains(word), "{model} {flags}: {told:?}");
            assert_eq!(told.stderr, format!("warning: {}\n", found[0]), "{flags}");
        }
    }
}

#[test]
fn tensors_hold_metadata_that_a_flag_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let has_record = |flags: &str| {
        let told = on(
            folder.path(),
            "generate --prompt a --output a",
            "flux-dev",
            flags,
        );
        assert!(warnings(&told.json()).is_empty(), "{told:?}");
        let bytes = std::fs::read(folder.path().join("a.safetensors")).unwrap();
        let header = String::from_utf8_lossy(&bytes);
        header.contains("xdit")
    };
    assert!(has_record("--output-type latent"));
    assert!(!has_record("--output-type latent --no-metadata"));
}

#[test]
fn flags_with_an_effect_are_no_warning() {
    let folder = tempfile::tempdir().unwrap();
    for (model, flags) in [
        ("flux-dev", "--guidance-scale 7"),
        ("flux-dev", "--negative-prompt b --true-cfg-scale 2"),
        ("sd35-medium", "--negative-prompt b"),
        (
            "flux-dev",
            "--ulysses-degree 2 --rank-timeout 9 --no-parallel-vae",
        ),
        (
            "flux-dev",
            "--pipefusion-parallel-degree 2 --num-pipeline-patch 2 --max-drift 3 --pipefusion-balance memory",
        ),
    ] {
        let told = on(
            folder.path(),
            "generate --prompt a --output a.png",
            model,
            flags,
        );
        let about_flags = |text: &str| text.contains("--") && text.contains(" effect");
        assert!(!about_flags(&told.stderr), "{flags}: {told:?}");
        assert!(!warnings(&told.json()).iter().any(|it| about_flags(it)));
    }
}

#[test]
fn words_that_the_demo_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "generate",
        "--num-inference-steps",
        "1",
        "--output",
        "a.png",
        "--prompt",
        "a cat in the center",
    ];
    let told = run(folder.path(), words).succeeded();
    assert!(told.stderr.ends_with("it does not know cat\n"), "{told:?}");
    assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
    // Who replays the picture gave no flag.
    let again = run(folder.path(), ["replay", "a.png"]).succeeded();
    assert_eq!(again.stderr, "");
}

#[test]
fn replicas_without_lines() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lines"), "a\n").unwrap();
    let told = on(
        folder.path(),
        "generate --prompt-file lines --output a.png --threads 1",
        "flux-dev",
        "--data-parallel-degree 2",
    );
    let last: Value = serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
    let found = warnings(&last);
    assert!(found[0].starts_with("2 ranks share 1 thread:"), "{told:?}");
    assert!(found[1].contains("1 replica without work, because replicas share 1 line"));
    assert_eq!(told.stderr.lines().count(), 2, "{told:?}");
}
