//! The ids of transformers for 500 prompts: `tokens.json.gz`, and `hunyuan-tokens.json.gz` for BERT and mT5.

use std::path::Path;

use serde_json::Value;
use xdit_models::ModelSource;
use xdit_models::text::tokenizers::Tokenizer;

use xdit_tests::goldens;

fn recorded(file: &str) -> Value {
    serde_json::from_slice(&goldens::bytes(file)).expect("a golden file")
}

/// The tokenizer in `folder`, `pipelines/NAME/COMPONENT` or `demo/COMPONENT`, of the class that its pipeline names.
fn tokenizer(folder: &str) -> Tokenizer {
    let (pipeline, component) = folder.rsplit_once('/').expect("a folder of a pipeline");
    let root = match pipeline {
        "demo" => Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdit-models/demo/flux"),
        _ => goldens::path(pipeline),
    };
    let index = std::fs::read(root.join("model_index.json")).expect("its index");
    let index: Value = serde_json::from_slice(&index).expect("its index");
    let class = index[component][1].as_str().expect("a class");
    let source = ModelSource::folder(root).expect("the pipeline");
    Tokenizer::read(&source, component, class).expect("its tokenizer")
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| id.as_u64().expect("an id") as u32)
        .collect()
}

#[test]
fn ids_are_those_of_transformers() {
    check("tokens.json.gz");
}

#[test]
fn ids_of_bert_and_mt5_are_those_of_transformers() {
    check("hunyuan-tokens.json.gz");
}

fn check(file: &str) {
    let recorded = recorded(file);
    let prompts: Vec<&str> = recorded["prompts"]
        .as_array()
        .expect("prompts")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(prompts.len(), 500, "the golden holds 500 prompts");
    for group in recorded["tokenizers"].as_array().expect("tokenizers") {
        let max_length = group["max_length"].as_u64().expect("max_length") as usize;
        for folder in group["folders"]
            .as_array()
            .expect("folders")
            .iter()
            .filter_map(Value::as_str)
        {
            let tokenizer = tokenizer(folder);
            let bound = tokenizer.id_bound() as u32;
            for (i, prompt) in prompts.iter().enumerate() {
                let encoded = tokenizer.encode(prompt, max_length).expect("a prompt");
                assert_eq!(
                    encoded.ids,
                    ids(&group["padded"][i]),
                    "{folder}: {prompt:?}"
                );
                let whole = ids(&group["ids"][i]);
                assert_eq!(
                    encoded.len,
                    whole.len().min(max_length),
                    "{folder}: {prompt:?}"
                );
                assert_eq!(
                    encoded.removed.is_some(),
                    whole.len() > max_length,
                    "{folder}: {prompt:?}"
                );
                assert_eq!(
                    tokenizer.encode(prompt, whole.len()).expect("a prompt").ids,
                    whole,
                    "{folder}: {prompt:?}"
                );
                assert!(
                    encoded.ids.iter().all(|id| *id < bound),
                    "{folder}: {prompt:?}"
                );
            }
        }
    }
}

#[test]
fn a_megabyte_of_prompt_is_cut_in_bounded_time() {
    let recorded = recorded("tokens.json.gz");
    let start = std::time::Instant::now();
    for folder in [
        "pipelines/flux-dev/tokenizer",
        "pipelines/flux-dev/tokenizer_2",
        "pipelines/hunyuan-v1.1/tokenizer",
        "demo/tokenizer_2",
    ] {
        let tokenizer = tokenizer(folder);
        // Words, one endless word, and characters that some of these tokenizers do not know.
        for (unit, fills) in [("a red circle, ", true), ("x", true), ("é😀", false)] {
            let long = tokenizer
                .encode(&unit.repeat((1 << 20) / unit.len()), 77)
                .expect("a long prompt");
            assert_eq!(long.ids.len(), 77, "{folder}");
            // BERT does not look into a word of more than 100 characters.
            let unknown = unit == "x" && folder == "pipelines/hunyuan-v1.1/tokenizer";
            let len = if unknown { 3 } else { 77 };
            assert!(long.len == len || !fills, "{folder}: {} tokens", long.len);
            let shown = long.removed.map_or(0, |removed| removed.text.len());
            assert!(
                shown < 10_000,
                "{folder}: shows {shown} bytes of what was cut off"
            );
        }
        assert!(
            tokenizer.encode(&"a".repeat(9 << 20), 77).is_err(),
            "{folder}"
        );
        assert!(tokenizer.encode("a", 0).is_err(), "{folder}");
    }
    // A second or two on one core; quadratic time would take hours.
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    assert!(
        recorded["versions"]["transformers"].is_string(),
        "the golden says which transformers made it"
    );
}
