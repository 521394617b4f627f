//! Hostile text in a model's files, its path and the prompt: the program prints only plain lines.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use xdit_models::quote::{is_hidden, is_line};

use crate::broken_model::copy;
use crate::program::{Outcome, run, small};

const HOSTILE: &str = "\u{1b}[31mX\u{1b}]0;t\u{7}\r\u{9b}2J\u{202e}\u{2028}y";

/// Checks that no byte of the output does more than to show itself.
#[track_caller]
pub(crate) fn plain(outcome: &Outcome) {
    for line in outcome.stderr.lines() {
        assert!(is_line(line), "{line:?}");
    }
    // An object may be long; its lines are as plain.
    let stdout = outcome.stdout.replace('\n', "");
    assert!(!stdout.contains(is_hidden), "{outcome:?}");
}

fn set(file: &Path, field: &str, value: Value) {
    let mut json: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    json[field] = value;
    fs::write(file, json.to_string()).unwrap();
}

#[test]
fn hostile_configurations_are_shown_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    let index = model.join("model_index.json");
    let long = HOSTILE.repeat(3_000);
    set(&index, "_diffusers_version", json!(long));
    set(&index, "feature_extractor", json!(["transformers", long]));
    set(&index, &long, json!([HOSTILE, HOSTILE]));
    set(
        &model.join("scheduler/scheduler_config.json"),
        &long,
        json!(1),
    );
    for words in [
        vec!["info", "model"],
        vec!["info", "model", "--json"],
        vec!["plan", "--model", "model", "-vv"],
        vec!["plan", "--model", "model", "--json"],
    ] {
        let outcome = run(folder.path(), &words).succeeded();
        plain(&outcome);
        assert!(
            outcome.stdout.len() < 20_000,
            "{} bytes",
            outcome.stdout.len()
        );
    }
    let text = run(folder.path(), ["info", "model"]).stdout;
    assert!(
        text.contains(r"\u{1b}[31mX") && text.lines().all(is_line),
        "{text}"
    );
    let outcome = run(folder.path(), small("a", &["--model", "model", "-vv"])).succeeded();
    plain(&outcome);
    assert!(outcome.stderr.contains(r"\u{1b}[31mX"), "{outcome:?}");
    // What a run refuses is as short, whatever it quotes.
    set(&model.join("vae/config.json"), "act_fn", json!(long));
    let outcome = run(folder.path(), small("a", &["--model", "model", "--json"]));
    plain(&outcome);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stderr.len() < 600, "{outcome:?}");
}

#[cfg(unix)]
#[test]
fn hostile_paths_and_prompts_are_shown_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a\u{1b}[31m\nb";
    copy(&folder.path().join(name));
    fs::write(
        folder.path().join("prompts"),
        format!("{HOSTILE}\n{{\"x\": \"{HOSTILE}\"}}\n"),
    )
    .unwrap();
    let png = format!("{name}.png");
    for (words, code) in [
        (vec!["info", name], 0),
        (vec!["plan", "--model", name], 0),
        (
            small(HOSTILE, &["--model", name, "--output", &png, "-v"]),
            0,
        ),
        (vec!["replay", &png], 0),
        (vec!["info", HOSTILE], 3),
        (small("a", &["--output", "no\x1b/such\n/folder.png"]), 1),
        (small("a", &["--scheduler", HOSTILE]), 2),
        (vec!["generate", "--prompt", "a", "--dtype", HOSTILE], 2),
    ] {
        let outcome = run(folder.path(), &words);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        plain(&outcome);
    }
    let lines = ["--height=64", "--width=64", "--num-inference-steps=1"];
    for json in [&[][..], &["--json"]] {
        let words = ["generate", "--prompt-file", "prompts", "--output", "x.png"];
        let outcome = run(folder.path(), words.iter().chain(&lines).chain(json));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        plain(&outcome);
    }
}
