//! What saves people a second run: a picture on standard output, seeds that are drawn, prompts that were meant as one.

use std::fs;

use crate::picture_record::record;
use crate::program::{command, names, run, small};

#[test]
fn a_picture_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let words = small("a", &["--output", "-", "--model", "demo"]);
    let output = command()
        .args(&words)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    fs::write(folder.path().join("piped.png"), &output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr
            .lines()
            .last()
            .unwrap()
            .starts_with("standard output: 64×64, 2 steps, f32: "),
        "{stderr}"
    );
    run(folder.path(), small("a", &["--output", "a.png"])).succeeded();
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(file("piped.png") == file("a.png"), "other bytes");
    for (more, word) in [
        (&["--num-images-per-prompt", "2"][..], "this run draws 2"),
        (&["--json"], "leave out --json"),
    ] {
        let refused = run(folder.path(), words.iter().chain(more));
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(word), "{refused:?}");
    }
    let refused = run(folder.path(), ["replay", "a.png", "--output", "-"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    // Tensors too, and all images of a batch in one file.
    let latents = ["--output-type", "latent", "--num-images-per-prompt", "2"];
    let output = command()
        .args(words.iter().chain(&latents))
        .output()
        .unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&output.stdout).unwrap();
    assert_eq!(tensors.tensor("latents").unwrap().shape(), [2, 16, 64]);
    assert_eq!(names(folder.path()), ["a.png", "piped.png"]);
}

#[test]
fn a_seed_that_is_drawn_is_told_and_draws_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |seed: &str, name: &str| {
        run(
            folder.path(),
            small("a", &["--seed", seed, "--output", name]),
        )
        .succeeded()
    };
    let first = draw("random", "a.png");
    let seed = record(&folder.path().join("a.png"))["request"]["seed"][0].to_string();
    let told = format!("--seed random is --seed {seed}");
    assert!(first.stderr.lines().any(|line| line == told), "{first:?}");
    draw(&seed, "b.png");
    draw("random", "c.png");
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(
        file("a.png") == file("b.png"),
        "another picture of the same seed"
    );
    assert!(
        file("a.png") != file("c.png"),
        "the same picture of another seed"
    );
    let minus_one = draw("-1", "d.png");
    assert!(
        minus_one.stderr.contains("--seed random draws one"),
        "{minus_one:?}"
    );
    assert_eq!(
        record(&folder.path().join("d.png"))["request"]["seed"][0],
        -1
    );
}

#[test]
fn words_that_were_meant_as_one_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(
        folder.path(),
        small("a", &["--output", "a/", "--prompt", "red", "circle"]),
    );
    let told = told.succeeded().stderr;
    let line = "warning: 3 prompts of one word each; one prompt of several words needs quotes: --prompt \"a red circle\"";
    assert!(told.lines().any(|it| it == line), "{told}");
    let fine = run(
        folder.path(),
        small("a red circle", &["--output", "b/", "--prompt", "star"]),
    );
    assert!(!fine.succeeded().stderr.contains("quotes"));
}
