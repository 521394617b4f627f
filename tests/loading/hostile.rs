//! For any value of a field of a configuration, the error is one plain line.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use xdit_models::quote::is_line;
use xdit_models::text::tokenizers::Tokenizer;
use xdit_models::{
    LoadOptions, ModelIndex, ModelSource, Parallel, Pipeline, Request, Result, info,
};
use xdit_tests::goldens::path;

/// A pipeline of each family, with T5, CLIP and BERT, and schedulers of both kinds.
const PIPELINES: [&str; 3] = ["flux-dev", "sd35-medium", "hunyuan-v1.1"];

type Files = BTreeMap<String, Vec<u8>>;

fn files(pipeline: &str) -> Files {
    let source = ModelSource::folder(path(&format!("pipelines/{pipeline}"))).unwrap();
    let read = |file: String| {
        let bytes = source.read(&file, 100_000_000).unwrap().into_owned();
        (file, bytes)
    };
    source.list().unwrap().into_iter().map(read).collect()
}

/// Text that a terminal would act on, and more of it than anyone reads.
fn hostile() -> String {
    "\u{1b}]0;title\u{7}\u{1b}[2J\n\r\u{9b}31m\u{202e}\u{2066}\u{2028}\u{200b}\u{e0041}\"'`"
        .repeat(300)
}

/// What each field of a file is set to.
fn values() -> Vec<Value> {
    let text = hostile();
    vec![
        json!(text),
        json!([text, text]),
        json!({ text.clone(): text }),
    ]
}

/// Everything that is told of these files, of which `changed` is another, before weights are read.
fn tell(files: &Files, changed: &str) -> Vec<String> {
    let source = ModelSource::memory(files.clone());
    let request = Request::new(["a red circle"]);
    let mut told = Vec::new();
    let mut keep = |result: Result<()>| told.extend(result.err().map(|error| error.to_string()));
    if !changed.starts_with("tokenizer") {
        let plan = Pipeline::plan(
            &source,
            &LoadOptions::default(),
            &request,
            &Parallel::default(),
        );
        keep(plan.map(drop));
        keep(info::describe(&source, None).map(drop));
    }
    if let Ok(index) = ModelIndex::read(&source) {
        for (name, component) in &index.components {
            if name.starts_with("tokenizer") && changed.starts_with(&format!("{name}/")) {
                let tokenizer = Tokenizer::read(&source, name, &component.class);
                keep(tokenizer.and_then(|t| t.encode("a red circle", 77).map(drop)));
            }
        }
    }
    told
}

#[test]
fn hostile_fields_are_told_in_plain_lines() {
    let mut refused = 0;
    for pipeline in PIPELINES {
        let whole = files(pipeline);
        assert_eq!(
            tell(&whole, "model_index.json"),
            [""; 0],
            "{pipeline} is not whole"
        );
        let small = |bytes: &[u8]| bytes.len() < 20_000;
        for (file, bytes) in whole.iter().filter(|(_, bytes)| small(bytes)) {
            let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else {
                continue;
            };
            let mut check = |fields: Value, what: &str| {
                let mut files = whole.clone();
                files.insert(file.clone(), fields.to_string().into_bytes());
                for line in tell(&files, file) {
                    refused += 1;
                    assert!(is_line(&line), "{pipeline}/{file}, {what}: {line:?}");
                }
            };
            for field in fields.keys() {
                for value in values() {
                    let mut changed = fields.clone();
                    changed[field] = value;
                    check(changed.into(), field);
                }
            }
            // As a name of a field, and of a component.
            let mut changed = fields.clone();
            changed.insert(hostile(), json!(["diffusers", hostile()]));
            check(changed.into(), "a field's name");
        }
    }
    assert!(refused > 500, "only {refused} were refused");
}
