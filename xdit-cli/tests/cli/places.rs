//! Names of files that conflict or are invalid: refused before anything is loaded.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::bad_input::refused;
use crate::broken_model::copy;
use crate::program::{names, run, small};

/// Runs `generate` with a model that does not exist, so that whatever else is told was found before it was looked for.
fn generate(folder: &Path, flags: &str) -> crate::program::Outcome {
    let words = [
        "generate",
        "--prompt",
        "a",
        "--num-inference-steps",
        "1",
        "--model",
        "/no/such",
    ];
    run(folder, words.into_iter().chain(flags.split_whitespace()))
}

#[test]
fn one_file_for_two_flags() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("old.png"), "old").unwrap();
    fs::hard_link(at("old.png"), at("hard.json")).unwrap();
    symlink("old.png", at("soft.json")).unwrap();
    symlink(".", at("here")).unwrap();
    let before = names(folder.path());
    for (flags, word) in [
        ("--output a.png --trace a.png", "--trace a.png"),
        ("--output a --trace a.png", "--trace a.png"),
        ("--output a.png --trace ./a.png", "a.png"),
        ("--output a.png --trace sub/../a.png", "a.png"),
        ("--output a.png --trace here/a.png", "a.png"),
        ("--output a.png --trace A.png", "A.png"),
        ("--output sub/ --trace sub/xdit-42.png", "xdit-42.png"),
        ("--trace xdit-42.png", "xdit-42.png"),
        (
            "--output a.png --num-images-per-prompt 3 --trace a_002.png",
            "a_002.png",
        ),
        ("--output old.png --trace hard.json", "hard.json"),
        ("--output old.png --trace soft.json", "soft.json"),
        ("--dump d --trace d/latents.safetensors", "--dump d"),
        ("--dump d --trace sub/../d/new.safetensors", "--dump d"),
        ("--dump d --trace d", "--dump d"),
        ("--dump d/e --trace d", "--dump d/e"),
        (
            "--dump d --output-type latent --output d/a.safetensors",
            "--dump d",
        ),
        ("--dump d --output-type float --output d/", "--dump d"),
        ("--output t/ --trace t", "--trace t"),
    ] {
        refused(&generate(folder.path(), flags), 2, word);
        assert_eq!(names(folder.path()), before, "{flags}");
    }
}

#[test]
fn the_files_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    copy(&at("model"));
    fs::rename(at("model/vae"), at("elsewhere")).unwrap();
    symlink("../elsewhere", at("model/vae")).unwrap();
    let weights = "transformer/diffusion_pytorch_model.safetensors";
    fs::rename(at("model").join(weights), at("weights.safetensors")).unwrap();
    symlink(at("weights.safetensors"), at("model").join(weights)).unwrap();
    symlink("model", at("alias")).unwrap();
    fs::write(at("p"), "a").unwrap();
    let before = names(&at("model"));
    for (flags, word) in [
        ("--output model/a.png", "--model"),
        ("--output alias/transformer/a.png", "--model"),
        ("--output model/new/", "--model"),
        ("--output elsewhere/a.png", "--model"),
        (
            "--output-type latent --output weights.safetensors",
            "weights.safetensors",
        ),
        ("--trace model/t.json", "--trace model/t.json"),
        ("--trace model/model_index.json", "--trace"),
        ("--dump model/dump", "--dump model/dump"),
        ("--dump model", "--dump model"),
        ("--prompt-file p", "--output model/x-00001.png"),
    ] {
        let words = ["generate", "--model", "model", "--num-inference-steps", "1"];
        let prompt: &[&str] = match flags.starts_with("--prompt-file") {
            true => &["--output", "model/x"],
            false => &["--prompt", "a"],
        };
        let words = words
            .iter()
            .chain(prompt)
            .copied()
            .chain(flags.split_whitespace());
        let outcome = run(folder.path(), words);
        refused(&outcome, 2, word);
        assert_eq!(names(&at("model")), before, "{flags}");
        assert!(!at("model/new").exists());
    }
    for words in [
        "info model --trace model/t",
        "plan --model alias --trace model/t",
    ] {
        refused(&run(folder.path(), words.split(' ')), 2, "--trace model/t");
    }
    // Where no name is given it would be one in the folder that the program was started in.
    let here = ["generate", "--prompt", "a", "--model", "."];
    refused(&run(&at("model"), here), 2, "--model .");
    assert_eq!(names(&at("model")), before);
}

/// The repository in the hub's cache, before it is looked for.
#[cfg(feature = "hub")]
#[test]
fn the_cache_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("hub/models--organisation--name");
    fs::create_dir_all(repository.join("blobs")).unwrap();
    let words = "generate --prompt a --model organisation/name --download-dir hub --trace \
                 hub/models--organisation--name/blobs/t";
    refused(&run(folder.path(), words.split_whitespace()), 2, "--model");
    assert_eq!(names(&repository.join("blobs")), [""; 0]);
}

#[test]
fn what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("set-00002.png"), "a\nb\n").unwrap();
    let words = |more: &'static str| {
        "generate --num-inference-steps 1 --height 64 --width 64 --prompt-file set-00002.png"
            .split(' ')
            .chain(more.split_whitespace())
    };
    refused(
        &run(folder.path(), words("--trace set-00002.png")),
        2,
        "--prompt-file",
    );
    // Its second line would be drawn over it.
    refused(
        &run(folder.path(), words("--output set.png")),
        2,
        "set-00002.png",
    );
    refused(
        &run(folder.path(), words("--trace set-00001.png --output set")),
        2,
        "set-00001.png",
    );
    run(folder.path(), small("a", &["--output", "a.png"])).succeeded();
    let picture = fs::read(at("a.png")).unwrap();
    refused(
        &run(folder.path(), ["replay", "a.png", "--output", "./a.png"]),
        2,
        "a.png",
    );
    refused(
        &run(folder.path(), ["replay", "a.png", "--trace", "a.png"]),
        2,
        "a.png",
    );
    assert_eq!(fs::read(at("a.png")).unwrap(), picture);
    assert_eq!(fs::read_to_string(at("set-00002.png")).unwrap(), "a\nb\n");
}

/// The recorded model is known only once the picture is read.
#[test]
fn the_recorded_model() {
    let folder = tempfile::tempdir().unwrap();
    copy(&folder.path().join("model"));
    run(
        folder.path(),
        small("a", &["--output", "a.png", "--model", "model"]),
    )
    .succeeded();
    for flag in ["--trace", "--output"] {
        let outcome = run(folder.path(), ["replay", "a.png", flag, "model/b.png"]);
        refused(&outcome, 2, "model/b.png");
        assert!(!folder.path().join("model/b.png").exists());
    }
}

#[test]
fn names_that_are_too_long() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.txt"), "a\nb\n").unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    let long = |bytes: usize| "x".repeat(bytes);
    for flags in [
        format!("--output {}.png", long(252)),
        format!("--output {}", long(252)),
        format!("--output {} --num-images-per-prompt 2", long(250)),
        format!("--output-type latent --output {}", long(244)),
        format!("--trace {}", long(256)),
        format!("--output {}/", long(256)),
        format!("--dump {}", long(256)),
        // 4096 bytes of path are too many on Linux.
        format!("--output {}a.png", "d/../".repeat(850)),
        format!("--trace {}a.png", "d/../".repeat(850)),
    ] {
        let outcome = generate(folder.path(), &flags);
        refused(&outcome, 2, "too long");
        assert_eq!(names(folder.path()), ["d", "prompts.txt"], "{flags:.20}");
    }
    let words = "generate --height 64 --width 64 --num-inference-steps 1 --prompt-file prompts.txt --output";
    let words = |bytes| words.split(' ').map(str::to_owned).chain([long(bytes)]);
    refused(&run(folder.path(), words(246)), 2, "too long");
    assert_eq!(names(folder.path()), ["d", "prompts.txt"]);
    // One byte less is drawn.
    run(folder.path(), words(245)).succeeded();
    let name = format!("{}.png", long(251));
    run(folder.path(), small("a", &["--output", &name])).succeeded();
    assert!(names(folder.path()).contains(&name));
}

#[test]
fn places_that_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let more = ["--output", "d/x", "--dump", "d", "--trace", "d/t.json"];
    run(folder.path(), small("a", &more)).succeeded();
    let made = names(&at("d"));
    for name in ["x.png", "t.json", "latents.safetensors"] {
        assert!(made.contains(&name.into()), "{made:?}");
    }
    run(
        folder.path(),
        small("a", &["--output", "new/er/", "--trace", "new/er/t"]),
    )
    .succeeded();
    assert_eq!(names(&at("new/er")), ["t", "xdit-42.png"]);
    // A name that the program chooses is not the trace's.
    run(
        folder.path(),
        small(
            "a",
            &["--output", "new/er/", "--trace", "new/er/xdit-42-1.png"],
        ),
    )
    .succeeded();
    assert_eq!(
        names(&at("new/er")),
        ["t", "xdit-42-1.png", "xdit-42-2.png", "xdit-42.png"]
    );
    // What a run makes and leaves empty goes with it.
    let failed = generate(folder.path(), "--output e/f/ --dump g/h");
    refused(&failed, 3, "/no/such");
    assert_eq!(names(folder.path()), ["d", "new"]);
}
