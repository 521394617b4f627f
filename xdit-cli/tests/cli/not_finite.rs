//! Results with NaN: refused with a message that names where they begin, or written if the flag allows it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use xdit_tests::changed::{files, scaled};

use crate::picture_record::record;
use crate::program::{Outcome, names, run};
use crate::replay::{read, write};

/// A pipeline of which every text stream is infinite in f16, and finite in f32.
fn beyond_f16(folder: &Path) {
    let files = scaled(files("flux-dev"), "vae", "decoder.conv_out.weight", 1e6);
    for (name, bytes) in files {
        let file = folder.join("model").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

fn draw(folder: &Path, more: &str) -> Outcome {
    let words = format!(
        "generate --model model --prompt cat --height 32 --width 32 --num-inference-steps 2 --max-sequence-length 16 {more}"
    );
    run(folder, words.split_whitespace())
}

const F16: &str = "--dtype f16 --output a.png";

#[test]
fn nothing_is_written_and_the_component_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    beyond_f16(folder);
    for more in [
        F16,
        "--dtype f16 --num-images-per-prompt 2 --output a.png",
        "--dtype f16 --output-type float --output a.safetensors",
        "--dtype f16 --ulysses-degree 2 --output a.png",
    ] {
        let outcome = draw(folder, more);
        assert_eq!(outcome.code, Some(1), "{more}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{more}: {outcome:?}");
        for part in [
            "begins in vae, in the pixels",
            "--dtype bf16",
            "--dtype f32",
            "--allow-non-finite",
        ] {
            assert!(outcome.stderr.contains(part), "{more}: {outcome:?}");
        }
        assert_eq!(names(folder), ["model"], "{more}");
    }
    // What comes before that part is as good as ever.
    draw(
        folder,
        "--dtype f16 --output-type latent --output a.safetensors",
    )
    .succeeded();
    draw(folder, "--dtype bf16 --output b.png").succeeded();
}

#[test]
fn who_asks_for_it_has_the_picture_and_can_replay_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    beyond_f16(folder);
    let told = draw(folder, &format!("{F16} --allow-non-finite --json"))
        .succeeded()
        .json();
    let warnings = told["warnings"].as_array().unwrap();
    let named = |text: &Value| text.as_str().unwrap().contains("begins in vae");
    assert!(warnings.len() == 1 && named(&warnings[0]), "{told}");
    assert_eq!(told["request"]["allow_non_finite"], true);
    let file = folder.join("a.png");
    assert_eq!(record(&file)["request"]["allow_non_finite"], true);
    run(folder, ["replay", "a.png"]).succeeded();
    // A record of before there was the flag.
    let (pixels, text) = read(&file);
    let old = text.replace("\"allow_non_finite\":true,", "");
    assert_ne!(text, old);
    write(&file, [32, 32], &pixels, &old);
    let outcome = run(folder, ["replay", "a.png", "--output", "b.png"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("begins in vae"), "{outcome:?}");
    assert!(!folder.join("b.png").exists());
    run(folder, ["replay", "a.png", "--allow-non-finite"]).succeeded();
}

#[test]
fn other_lines_of_a_prompt_file_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    beyond_f16(folder);
    fs::write(folder.join("prompts"), "cat\n{\"prompt\": \"dog\"}\n").unwrap();
    let words = "generate --model model --prompt-file prompts --height 32 --width 32 --num-inference-steps 1 \
                 --max-sequence-length 16 --output p/";
    let of_dtype = |dtype: &str| {
        let words = words.split_whitespace().chain(["--dtype", dtype]);
        run(folder, words)
    };
    let outcome = of_dtype("f16");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for line in ["prompts:1: ", "prompts:2: "] {
        let told = outcome.stderr.lines().find(|text| text.contains(line));
        assert!(
            told.is_some_and(|text| text.contains("begins in vae")),
            "{outcome:?}"
        );
    }
    of_dtype("bf16").succeeded();
}
