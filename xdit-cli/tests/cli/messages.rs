//! What a new user is told: each message names what was typed, what is allowed, and the way out, in words for people.

use std::path::Path;

use crate::program::{run, small};

fn golden(name: &str) -> String {
    format!(
        "{}/../tests/golden/pipelines/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// What is told on standard error of a call of the demo with these flags.
fn told(command: &str, flags: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let words = command.split_whitespace().chain(flags.split_whitespace());
    run(folder.path(), words).stderr
}

#[test]
fn refusals_read_as_the_user_typed() {
    let call = "generate --prompt a --height 64 --width 64 --num-inference-steps 2";
    let cut = "--pipefusion-parallel-degree 2 --attn-layer-num-for-pp";
    for (flags, message) in [
        (
            format!("{cut} 3,4"),
            "--attn-layer-num-for-pp 3,4: must be at least 1 each and 8 in all, the blocks of the model",
        ),
        (
            format!("{cut} 3 4 1"),
            "--attn-layer-num-for-pp 3,4,1: must be 2 numbers, one for each stage",
        ),
        (
            format!("{cut} 8"),
            "--attn-layer-num-for-pp 8: must be 2 numbers, one for each stage",
        ),
        (
            "--ulysses-degree 0".to_owned(),
            "--ulysses-degree 0: must be at least 1",
        ),
        (
            "--seed 1 2 3".to_owned(),
            "--seed 3 seeds: must be 1 seed, because 1 image is drawn",
        ),
        (
            "--seed 1 2 3 -n 2".to_owned(),
            "--seed 3 seeds: must be 1 seed for all images or 2, one for each",
        ),
        (
            "--prompt-2 b c".to_owned(),
            "--prompt-2 2 prompts: must be 1 prompt, as --prompt is",
        ),
        (
            "--clip-skip 2".to_owned(),
            "--clip-skip must be left out: this model has no use for it",
        ),
        (
            "--threads 0".to_owned(),
            "invalid value '0' for '--threads <N>': expected a number from 1 to 65535",
        ),
        (
            "--max-sequence-length abc".to_owned(),
            "invalid value 'abc' for '--max-sequence-length <N>': expected a whole number from 0",
        ),
    ] {
        assert_eq!(told(call, &flags), format!("error: {message}\n"));
    }
    let told = told(call, "--use-cfg-parallel");
    assert!(
        told.contains(
            "--cfg-degree 2 (--use-cfg-parallel): must be 1, because guidance has one branch"
        ),
        "{told}"
    );
    assert!(told.contains("--true-cfg-scale above 1"), "{told}");
}

#[test]
fn sizes_are_for_people() {
    let told = told("generate --prompt a", "--height 20000 --width 20000");
    assert!(
        told.starts_with("error: out of memory: 20000 × 20000 needs "),
        "{told}"
    );
    assert!(
        told.contains(" GiB, ") && told.contains("try --vae-tiling or a smaller size"),
        "{told}"
    );
}

#[test]
fn warnings_name_flags() {
    let folder = tempfile::tempdir().unwrap();
    let drift = [
        "--num-pipeline-patch",
        "2",
        "--num-inference-steps",
        "4",
        "--height",
        "64",
        "--width",
        "64",
    ];
    let words = ["generate", "--prompt", "a red circle"]
        .into_iter()
        .chain(drift);
    let told = run(folder.path(), words).succeeded().stderr;
    assert!(
        told.contains("more --warmup-steps, or --max-drift, bring"),
        "{told}"
    );
    let words = [
        "plan",
        "--model",
        &golden("hunyuan-v1.2"),
        "--height",
        "500",
        "--width",
        "500",
    ];
    let told = run(folder.path(), words).succeeded().stderr;
    assert!(told.contains("(--use-resolution-binning)"), "{told}");
}

#[test]
fn one_is_singular() {
    let folder = tempfile::tempdir().unwrap();
    let mut words = small("a", &["--output", "a.png"]);
    words.retain(|word| *word != "2");
    let at = words
        .iter()
        .position(|word| *word == "--num-inference-steps")
        .unwrap();
    words.insert(at + 1, "1");
    let drawn = run(folder.path(), words).succeeded().stdout;
    assert!(drawn.contains(", 1 step, "), "{drawn}");
    let info = run(folder.path(), ["info"]).succeeded().stdout;
    assert!(
        info.contains("1 file\n") && info.contains("2 blocks\n"),
        "{info}"
    );
    let plan = run(Path::new("."), ["plan", "--num-inference-steps", "1"])
        .succeeded()
        .stdout;
    for phrase in [
        "1 image,",
        "1 step,",
        "1 rank\n",
        "1 patch:",
        "1 step whole",
    ] {
        assert!(plan.contains(phrase), "{phrase}: {plan}");
    }
}
