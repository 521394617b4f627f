//! Requests that Stable Diffusion 3, or guidance on two ranks, does not support: one line that names the flag, exit code 2.

use std::fs;
use std::path::Path;

use crate::bad_input::{refused, refused_with_totals};
use crate::program::{Outcome, names, run, small};
use crate::sd3::{golden, on};

#[test]
fn what_sd3_cannot_draw() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "--guidance-scale 1 --use-cfg-parallel",
            "--cfg-degree 2 (--use-cfg-parallel): must be 1",
        ),
        ("--guidance-scale 0.5 --cfg-degree 2", "--cfg-degree 2"),
        (
            "--use-cfg-parallel --cfg-degree 1",
            "leave out --cfg-degree 1",
        ),
        ("--cfg_degree 3", "--cfg-degree"),
        ("--height 72", "--height 72: must be divisible by 16"),
        ("--width 208", "--width 208: must be at most 192"),
        ("--clip-skip 3", "--clip-skip 3: must be below 3"),
        ("--clip-skip -1", "-1"),
        (
            "--skip-guidance-layers 1,5",
            "--skip-guidance-layers 5: must be below 5",
        ),
        ("--skip-guidance-layers 1,x", "--skip-guidance-layers"),
        (
            "--skip-layer-guidance-scale 3",
            "--skip-layer-guidance-scale 3: must be left out without --skip-guidance-layers",
        ),
        (
            "--skip-guidance-layers 1 --skip-layer-guidance-stop nan",
            "--skip-layer-guidance-stop",
        ),
        (
            "--true-cfg-scale 2 --negative-prompt green",
            "--true-cfg-scale",
        ),
        ("--max-sequence-length 513", "--max-sequence-length 513"),
        (
            "--prompt-3 a b",
            "--prompt-3 2 prompts: must be 1 prompt, as --prompt is",
        ),
        (
            "--negative-prompt-3 a b",
            "--negative-prompt-3 2 prompts: must be 1 prompt, as --prompt is",
        ),
        (
            "--scheduler DDIMScheduler",
            "--scheduler DDIMScheduler: must be FlowMatchEulerDiscreteScheduler",
        ),
        (
            "--guidance-rescale 0.7",
            "--guidance-rescale must be left out",
        ),
        (
            "--no-use-resolution-binning",
            "--use-resolution-binning must be left out",
        ),
        ("--original-size 64", "--original-size"),
    ];
    for (flags, told) in cases {
        for command in ["plan", "generate --prompt circle"] {
            // The size of the row takes the place of the usual one.
            let model = golden("sd35-medium").display().to_string();
            let words = format!("{command} {flags} --model {model}");
            refused(&run(folder.path(), words.split_whitespace()), 2, told);
        }
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn what_flux_has_no_use_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts"), "a\n").unwrap();
    for (flags, flag) in [
        ("--prompt-3 square", "--prompt-3 must be left out"),
        (
            "--negative-prompt-3 square",
            "--negative-prompt-3 must be left out",
        ),
        ("--clip-skip 1", "--clip-skip must be left out"),
        (
            "--skip_guidance_layers 1",
            "--skip-guidance-layers must be left out",
        ),
        (
            "--guidance-rescale 0.7",
            "--guidance-rescale must be left out",
        ),
        (
            "--use_resolution_binning",
            "--use-resolution-binning must be left out",
        ),
        ("--original-size 64 64", "--original-size must be left out"),
        ("--target_size 64 64", "--target-size must be left out"),
        (
            "--crops-coords-top-left 0 0",
            "--crops-coords-top-left must be left out",
        ),
    ] {
        let outcome = |command| {
            let words = format!("{command} {flags}");
            run(folder.path(), words.split_whitespace())
        };
        refused(&outcome("plan"), 2, flag);
        refused(&outcome("generate --prompt a"), 2, flag);
        refused_with_totals(outcome("generate --prompt-file prompts"), 2, flag);
    }
    assert_eq!(names(folder.path()), ["prompts"]);
}

#[test]
fn flux_on_two_guidance_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |more: &str| -> Outcome {
        let words: Vec<&str> = more.split_whitespace().collect();
        run(folder.path(), small("circle", &words))
    };
    for more in [
        "--use-cfg-parallel",
        "--use-cfg-parallel --negative-prompt green",
        "--use-cfg-parallel --true-cfg-scale 2",
    ] {
        refused(&draw(more), 2, "--use-cfg-parallel");
    }
    assert_eq!(names(folder.path()), [""; 0]);
    let guided =
        "--negative-prompt green --true-cfg-scale 2 --no-metadata --no-parallel-vae --output";
    draw(&format!("{guided} one.png")).succeeded();
    draw(&format!("{guided} two.png --use-cfg-parallel")).succeeded();
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(file("one.png") == file("two.png"), "other bytes");
}

#[test]
fn demos_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), small("circle", &["--model", "demo:sd3"]));
    refused(
        &outcome,
        3,
        "demo:sd3: the only demo is --model demo, a small Flux",
    );
    refused(
        &run(folder.path(), ["info", "demo:sd3"]),
        3,
        "the only demo is --model demo",
    );
    assert_eq!(names(folder.path()), [""; 0]);
}

/// Sizes that the model was not made for are those of a line, not of the file.
#[test]
fn a_prompt_file_is_not_refused_for_the_size_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts"), "a\n").unwrap();
    let command = "generate --prompt-file prompts";
    on(folder.path(), "sd3-medium", command, "--output set.png").succeeded();
    assert!(Path::new(&folder.path().join("set-00001.png")).exists());
}
