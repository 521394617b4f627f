//! Folders that are almost a pipeline: the message says what they are, and what to give instead. Folders that diffusers accepts
//! are accepted.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bad_input::refused;
use crate::broken_model::copy;
use crate::generate::pixels;
use crate::program::{Outcome, run, small};

fn drawn(folder: &Path, model: &str, more: &[&str]) -> Outcome {
    let flags = ["--model", model, "--output", "a.png"];
    run(folder, small("a red circle", &[&flags, more].concat()))
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

#[test]
fn a_level_too_high_too_low_or_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    copy(&folder.path().join("models--org--name/snapshots/abc"));
    drawn(folder.path(), "models--org--name", &[]).succeeded();
    run(folder.path(), ["info", "models--org--name"]).succeeded();
    for (model, word) in [
        (
            "models--org--name/snapshots",
            "further down: give models--org--name/snapshots/abc",
        ),
        (
            "models--org--name/snapshots/abc/transformer",
            "one component of the pipeline in",
        ),
    ] {
        refused(&drawn(folder.path(), model, &[]), 4, word);
    }
    copy(&folder.path().join("models--org--name/snapshots/def"));
    let several = drawn(folder.path(), "models--org--name", &[]);
    refused(&several, 3, "several snapshots");
    fs::create_dir(folder.path().join("models--org--name/refs")).unwrap();
    fs::write(folder.path().join("models--org--name/refs/main"), "def").unwrap();
    drawn(folder.path(), "models--org--name", &[]).succeeded();
    fs::create_dir(folder.path().join("single")).unwrap();
    fs::write(folder.path().join("single/flux1-dev.safetensors"), "").unwrap();
    let single = drawn(folder.path(), "single", &[]);
    refused(
        &single,
        4,
        "checkpoints in one file (flux1-dev.safetensors)",
    );
}

#[test]
fn weights_of_another_form() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    let weights = model.join("text_encoder/model.safetensors");
    for (name, word) in [
        (
            "model-00001-of-00002.safetensors",
            "fetch `model.safetensors.index.json` too",
        ),
        ("pytorch_model.bin", "`pytorch_model.bin`, a pickle"),
        ("model.fp16.safetensors", "is it a variant?"),
    ] {
        let other = weights.with_file_name(name);
        fs::rename(&weights, &other).unwrap();
        refused(&drawn(folder.path(), "model", &[]), 4, word);
        fs::rename(&other, &weights).unwrap();
    }
    #[cfg(unix)]
    {
        fs::remove_file(&weights).unwrap();
        std::os::unix::fs::symlink("../../../blobs/0123", &weights).unwrap();
        let outcome = drawn(folder.path(), "model", &[]);
        refused(
            &outcome,
            4,
            "`model.safetensors` there is a link to ../../../blobs/0123, which is not there",
        );
    }
}

#[test]
fn what_a_component_calls_itself_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    drawn(folder.path(), "model", &[]).succeeded();
    let expected = pixels(&folder.path().join("a.png"));
    for (file, field, class) in [
        (
            "transformer/config.json",
            "_class_name",
            json!("FluxTransformer2DModelWithMasking"),
        ),
        ("vae/config.json", "_class_name", json!("Mine")),
        (
            "text_encoder/config.json",
            "architectures",
            json!(["RobertaModel"]),
        ),
        (
            "text_encoder_2/config.json",
            "architectures",
            json!(["MT5EncoderModel"]),
        ),
        (
            "scheduler/scheduler_config.json",
            "_class_name",
            json!("DDIMScheduler"),
        ),
    ] {
        change(&model.join(file), |json| json[field] = class);
    }
    run(folder.path(), ["info", "model"]).succeeded();
    drawn(folder.path(), "model", &[]).succeeded();
    assert_eq!(pixels(&folder.path().join("a.png")), expected);
}

#[test]
fn a_tensor_that_only_the_index_has_is_no_matter() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    let weights = model.join("transformer/diffusion_pytorch_model.safetensors");
    let shard = "diffusion_pytorch_model-00001-of-00001.safetensors";
    let bytes = fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let names = header.as_object().unwrap().keys().cloned();
    let names = names.filter(|name| name != "__metadata__");
    let map = names.chain(["nobody.needs.this".to_owned()]);
    let map: serde_json::Map<_, _> = map.map(|name| (name, json!(shard))).collect();
    fs::rename(&weights, weights.with_file_name(shard)).unwrap();
    let index = weights.with_file_name("diffusion_pytorch_model.safetensors.index.json");
    fs::write(
        &index,
        json!({"metadata": {}, "weight_map": map}).to_string(),
    )
    .unwrap();
    drawn(folder.path(), "model", &[]).succeeded();
}

#[test]
fn files_that_change_between_pictures_end_the_run() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    let words = "generate --prompt-file - --model model --output x.png --height 32 --width 32 --num-inference-steps 1";
    let mut child = crate::program::command()
        .args(words.split_whitespace())
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // All lines are read before the first is drawn; enough of them follow the change.
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all("a red circle\n".repeat(400).as_bytes())
        .unwrap();
    drop(stdin);
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    // Replaced, not cut in place: no page of it is lost.
    let weights = model.join("text_encoder_2/model.safetensors");
    let shorter = fs::read(&weights).unwrap();
    fs::write(model.join("new"), &shorter[..shorter.len() / 2]).unwrap();
    fs::rename(model.join("new"), &weights).unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    let lines: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert!(
        lines.len() == 1 && lines[0].contains("text_encoder_2/model.safetensors: had"),
        "{stderr}"
    );
}

#[test]
fn warnings_come_once() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    change(&model.join("scheduler/scheduler_config.json"), |json| {
        json["odd_option"] = json!(1)
    });
    let long = "word ".repeat(200);
    fs::write(
        folder.path().join("prompts"),
        format!("{long}\n{long}\n{long}\n"),
    )
    .unwrap();
    let words = "generate --prompt-file prompts --model model --low-memory --output x.png --height 40 --width 40 \
                 --num-inference-steps 1";
    let outcome = run(folder.path(), words.split_whitespace()).succeeded();
    for part in ["odd_option", "divisible by 16", "because CLIP reads"] {
        let count = outcome
            .stderr
            .lines()
            .filter(|line| line.contains(part))
            .count();
        assert_eq!(count, 1, "{part}: {outcome:?}");
    }
}
