//! Malicious tokenizers: they use memory or time, never end, make the library fail, or change between reads.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bad_input::refused;
use crate::broken_model::copy_tree;
use crate::program::{Outcome, run};
use crate::sd3::golden;

/// A picture by Stable Diffusion 3 with its first tokenizer taken as its file is, once `change` has changed it.
fn draw(folder: &Path, prompt: &str, change: impl FnOnce(&mut Value)) -> Outcome {
    let model = folder.join("model");
    copy_tree(&golden("sd35-medium"), &model);
    let edit = |file: &str, change: &mut dyn FnMut(&mut Value)| {
        let path = model.join(file);
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
    };
    edit("model_index.json", &mut |json| {
        json["tokenizer"][1] = json!("TokenizersBackend")
    });
    let mut change = Some(change);
    edit("tokenizer/tokenizer.json", &mut |json| {
        (change.take().unwrap())(json)
    });
    let size =
        "--height 32 --width 32 --num-inference-steps 1 --output a.png --model model --prompt";
    let words = ["generate"].into_iter().chain(size.split(' '));
    run(folder, words.chain([prompt]))
}

#[test]
fn one_that_is_whole_draws() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), "a red circle", |_| {}).succeeded();
    assert!(folder.path().join("a.png").exists());
}

#[test]
fn each_is_refused_by_its_file() {
    let replace =
        json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)});
    let template = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
        "single": vec![json!({"Sequence": {"id": "A", "type_id": 0}}); 3]});
    let split = json!({"type": "Split", "pattern": {"Regex": "(?:a|a)*(?!a)b"}, "behavior": "Isolated", "invert": false});
    // The library reads before the start of a token of one mark.
    let strip = json!({"type": "Strip", "content": "!", "start": 0, "stop": 10});
    let long = "!!!! ".repeat(100);
    let endless = "a".repeat(60_000);
    for (part, value, prompt, word) in [
        (
            "normalizer",
            json!({"type": "Sequence"}),
            "a",
            "is a Sequence without a list",
        ),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": vec![replace; 4]}),
            "a",
            "`normalizer` makes more than",
        ),
        (
            "post_processor",
            template,
            "a",
            "has the prompt (`$A`) 3 times",
        ),
        (
            "pre_tokenizer",
            split,
            &endless,
            "Max limit for backtracking",
        ),
        (
            "decoder",
            strip,
            &long,
            "the tokenizers library cannot handle these files",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let outcome = draw(folder.path(), prompt, |json| json[part] = value);
        refused(&outcome, 4, word);
        refused(&outcome, 4, "model/tokenizer/tokenizer.json: ");
        assert!(!folder.path().join("a.png").exists());
    }
    let folder = tempfile::tempdir().unwrap();
    let outcome = draw(folder.path(), "a", |json| {
        json["model"]["dropout"] = json!(0.5)
    });
    refused(
        &outcome,
        4,
        "tokenizer.json: `model.dropout` must be null or 0",
    );
}
