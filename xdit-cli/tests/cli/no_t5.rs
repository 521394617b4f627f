//! `--no-t5`: Stable Diffusion 3 without its T5.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::generate::pixels;
use crate::picture_record::record;
use crate::program::{names, run};
use crate::sd3::{golden, on};

/// A pipeline that has a T5.
const MODEL: &str = "sd35-medium";

/// A copy of the files of `from`.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

const DRAW: &str = "generate --prompt circle --height 96 --width 80 --num-inference-steps 3 --max-sequence-length 13";

#[test]
fn the_picture_is_that_of_a_pipeline_without_t5() {
    let folder = tempfile::tempdir().unwrap();
    // As diffusers saves a pipeline with text_encoder_3=None, tokenizer_3=None.
    let without = folder.path().join("without");
    copy(&golden(MODEL), &without);
    fs::remove_dir_all(without.join("text_encoder_3")).unwrap();
    fs::remove_dir_all(without.join("tokenizer_3")).unwrap();
    let index = without.join("model_index.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    for part in ["text_encoder_3", "tokenizer_3"] {
        json[part] = serde_json::json!([null, null]);
    }
    fs::write(&index, json.to_string()).unwrap();
    // With T5's files there, but of no use: they are not read.
    let with = folder.path().join("with");
    copy(&golden(MODEL), &with);
    fs::write(with.join("text_encoder_3/config.json"), b"{").unwrap();
    fs::write(with.join("text_encoder_3/model.safetensors"), b"").unwrap();
    fs::remove_dir_all(with.join("tokenizer_3")).unwrap();

    let draw = |more: &str| {
        let words = format!("{DRAW} --output a.png {more}");
        run(folder.path(), words.split_whitespace()).succeeded();
        pixels(&folder.path().join("a.png")).2
    };
    let absent = draw("--model without");
    assert!(draw("--model with --no-t5") == absent, "other pixels");
    assert_eq!(record(&folder.path().join("a.png"))["model"]["no_t5"], true);
    let again = run(folder.path(), ["replay", "a.png"]).succeeded();
    assert!(again.stdout.contains("identical"), "{again:?}");
    // What has none stays as it is.
    assert!(draw("--model without --no-t5") == absent, "other pixels");
    let whole = golden(MODEL).display().to_string();
    let all = draw(&format!("--model {whole}"));
    assert!(all != absent, "T5 says nothing");
    assert!(
        draw(&format!("--model {whole} --no_t5")) == absent,
        "other pixels"
    );
    // As many zeros as there would be tokens of T5.
    let longer = DRAW.replace("13", "20") + " --output b.png --model without";
    run(folder.path(), longer.split_whitespace()).succeeded();
    assert!(pixels(&folder.path().join("b.png")).2 != absent);
}

#[test]
fn a_prompt_for_t5_is_said_to_have_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let told = on(
        folder.path(),
        MODEL,
        "generate --prompt a",
        "--no-t5 --prompt-3 b --output a.png",
    );
    let told = told.succeeded().stderr;
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn who_needs_t5_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let hunyuan = golden("hunyuan-v1.2").display().to_string();
    let flux = golden("flux-dev").display().to_string();
    for model in ["demo", &flux, &hunyuan] {
        for command in [
            &["generate", "--prompt", "a", "--model"][..],
            &["plan", "--model"],
            &["info"],
        ] {
            let words = [command, &[model, "--no-t5"]].concat();
            let refused = run(folder.path(), words);
            assert_eq!(refused.code, Some(2), "{refused:?}");
            let told = &refused.stderr;
            assert!(
                told.starts_with("error: --no-t5 must be left out: "),
                "{told}"
            );
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
    assert_eq!(names(folder.path()), [""; 0]);
}
