//! Tests with files that try to use much memory or time, to run for ever, or to change between reads.

use super::tests::{source, t5_json};
use super::*;

/// Returns a `tokenizer.json` of the model of whole words, with these other parts.
fn whole(parts: &str) -> Result<Tokenizer> {
    let json = format!(
        r#"{{{parts}"model":{{"type":"WordLevel","unk_token":"?","vocab":{{"?":0,"a":1,"p":2}}}},"padding":{{"pad_token":"p"}}}}"#
    );
    Tokenizer::read(
        &source(&[("t/tokenizer.json", &json)]),
        "t",
        "TokenizersBackend",
    )
}

fn refused(tokenizer: Result<Tokenizer>, prompt: &str) -> String {
    let error = tokenizer.and_then(|tokenizer| tokenizer.encode(prompt, 8));
    let error = error.unwrap_err();
    assert_eq!(error.category(), crate::ErrorCategory::BadModel, "{error}");
    let error = error.to_string();
    assert!(error.starts_with("memory:t/tokenizer.json: "), "{error}");
    assert!(error.len() < 400 && !error.contains('\n'), "{error}");
    error
}

#[test]
fn steps_within_steps_have_an_end() {
    let nest = |name: &str, list: &str| {
        let mut step = String::from(r#"{"type":"Sequence"}"#);
        for _ in 0..40 {
            step = format!(r#"{{"type":"Sequence","{list}":[{step}]}}"#);
        }
        format!(r#""{name}":{step},"#)
    };
    for (name, list) in [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
        ("post_processor", "processors"),
        ("decoder", "decoders"),
    ] {
        let without = format!(r#""{name}":{{"type":"Sequence"}},"#);
        let error = refused(whole(&without), "a");
        assert!(
            error.contains(&format!("`{name}` is a Sequence without a list")),
            "{error}"
        );
        let error = refused(whole(&nest(name, list)), "a");
        assert!(
            error.contains(&format!("`{name}` has more than 16 Sequences")),
            "{error}"
        );
        // Deeper than the JSON reader allows.
        let deep = format!(
            r#""{name}":{}{},"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        refused(whole(&deep), "a");
    }
    let json = t5_json(r#"{"type":"Sequence"}"#);
    let read = Tokenizer::read(&source(&[("t/tokenizer.json", &json)]), "t", "T5Tokenizer");
    assert!(refused(read, "a").contains("without a list `normalizers`"));
}

#[test]
fn texts_grow_by_a_bounded_factor() {
    let replace = format!(
        r#"{{"type":"Replace","pattern":{{"String":"a"}},"content":"{}"}}"#,
        "a".repeat(1000)
    );
    let bomb = format!(
        r#""normalizer":{{"type":"Sequence","normalizers":[{}]}},"#,
        [&*replace; 4].join(",")
    );
    assert!(refused(whole(&bomb), "a a a").contains("`normalizer` makes more than"));
    assert!(whole(&bomb).unwrap().encode("b", 8).is_ok());
    let prepend = format!(
        r#""normalizer":{{"type":"Prepend","prepend":"{}"}},"#,
        "x".repeat(100_000)
    );
    assert!(refused(whole(&prepend), "a").contains("`normalizer` makes more than"));
    // Each of these makes two bytes of a byte above 127.
    let bytes =
        r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}"#;
    let bytes = format!(
        r#""pre_tokenizer":{{"type":"Sequence","pretokenizers":[{}]}},"#,
        [bytes; 30].join(",")
    );
    assert!(refused(whole(&bytes), "é").contains("`pre_tokenizer` makes more than"));
    // Between many special tokens, each part grows a little.
    let added = r#""added_tokens":[{"id":3,"content":"|","special":true}],"normalizer":{"type":"Prepend","prepend":"XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"},"#;
    assert!(refused(whole(added), &"a|".repeat(10_000)).contains("makes more than"));
}

#[test]
fn a_prompt_stands_once_in_a_template() {
    let prompt = r#"{"Sequence":{"id":"A","type_id":0}}"#;
    let template = format!(
        r#""post_processor":{{"type":"TemplateProcessing","single":[{}],"pair":[],"special_tokens":{{}}}},"#,
        [prompt; 3].join(",")
    );
    let error = refused(whole(&template), "a");
    assert!(
        error.contains("`post_processor.single` has the prompt (`$A`) 3 times"),
        "{error}"
    );
}

#[test]
fn expressions_that_never_end_are_errors() {
    let split = r#""pre_tokenizer":{"type":"Split","pattern":{"Regex":"(?:a|a)*(?!a)b"},"behavior":"Isolated","invert":false},"#;
    let error = refused(whole(split), &"a".repeat(1 << 20));
    assert!(
        error.contains("the regular expression `(?:a|a)*(?!a)b`"),
        "{error}"
    );
}

#[test]
fn a_panic_of_the_library_is_an_error_of_the_file() {
    let step = r#""pre_tokenizer":{"type":"FixedLength","length":0},"#;
    assert!(refused(whole(step), "a").contains("FixedLength with a `length` of 0"));
    let error = guarded::<()>("memory:t/tokenizer.json", || {
        panic!("index out of {}", "range")
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("memory:t/tokenizer.json: the tokenizers library cannot handle"),
        "{error}"
    );
    assert!(error.ends_with("index out of range"), "{error}");
}

#[test]
fn nothing_is_left_to_chance() {
    let json = |dropout: &str| {
        format!(
            r#"{{"model":{{"type":"BPE","dropout":{dropout},"vocab":{{"h":0,"i</w>":1,"<|startoftext|>":2,"<|endoftext|>":3}},
            "merges":[]}},"padding":{{"pad_token":"h"}}}}"#
        )
    };
    for class in ["CLIPTokenizer", "TokenizersBackend"] {
        let read = |dropout: &str| {
            let json = json(dropout);
            Tokenizer::read(&source(&[("t/tokenizer.json", &json)]), "t", class)
        };
        for chance in ["0.1", "1", "1e-9", "\"0\""] {
            let error = read(chance).unwrap_err().to_string();
            assert!(
                error.contains("t/tokenizer.json: `model.dropout` must be null or 0"),
                "{error}"
            );
            assert!(error.ends_with(&format!("found {chance}")), "{error}");
        }
        for none in ["null", "0", "0.0"] {
            assert!(read(none).is_ok(), "{class} {none}");
        }
    }
}
