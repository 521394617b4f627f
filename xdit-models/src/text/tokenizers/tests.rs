use super::*;

const VOCAB: &str = r#"{"h":0,"i</w>":1,"hi</w>":2,"<|startoftext|>":3,"<|endoftext|>":4}"#;
const MERGES: &str = "#version: 0.2\nh i</w>\n";

fn clip(files: &[(&str, &str)]) -> Result<Tokenizer> {
    let mut all = vec![("t/vocab.json", VOCAB), ("t/merges.txt", MERGES)];
    all.extend(files);
    Tokenizer::read(&source(&all), "t", "CLIPTokenizer")
}

pub(super) fn source(files: &[(&str, &str)]) -> ModelSource {
    ModelSource::memory(
        files
            .iter()
            .map(|(path, text)| (*path, text.as_bytes().to_vec())),
    )
}

pub(super) fn t5_json(normalizer: &str) -> String {
    format!(
        r#"{{"version":"1.0","added_tokens":[],"normalizer":{normalizer},"pre_tokenizer":null,"post_processor":null,
        "decoder":null,"model":{{"type":"Unigram","unk_id":2,
        "vocab":[["<pad>",0.0],["</s>",0.0],["<unk>",0.0],["▁",-2.0],["▁a",-1.0],["b",-1.5]]}}}}"#
    )
}

#[test]
fn short_prompts_are_padded_and_long_ones_cut() {
    let tokenizer = clip(&[]).unwrap();
    let short = tokenizer.encode("hi", 5).unwrap();
    assert_eq!(
        (short.ids, short.len, short.removed),
        (vec![3, 2, 4, 4, 4], 3, None)
    );
    let empty = tokenizer.encode("", 4).unwrap();
    assert_eq!((empty.ids, empty.len), (vec![3, 4, 4, 4], 2));
    let long = tokenizer.encode("hi  HI\nhi hi", 4).unwrap();
    assert_eq!(long.ids, [3, 2, 2, 4]);
    assert_eq!(
        long.removed,
        Some(Removed {
            tokens: 2,
            text: "hi hi".into()
        })
    );
    assert_eq!(tokenizer.encode("hi", 2).unwrap().ids, [3, 4]);
    let error = tokenizer.encode("hi", 1).unwrap_err().to_string();
    assert!(
        error.starts_with("`max_sequence_length` = 1: must be from 2"),
        "{error}"
    );
}

#[test]
fn either_side_is_padded_and_cut_as_the_files_say() {
    // As transformers 5.23 answers for these files.
    let cut = r#"{"truncation_side": "left"}"#;
    let tokenizer = clip(&[("t/tokenizer_config.json", cut)]).unwrap();
    let long = tokenizer.encode("odd hi hi", 4).unwrap();
    assert_eq!(long.ids, [3, 2, 2, 4]);
    // Not in the vocabulary.
    let odd = Some("<|endoftext|>".repeat(3));
    assert_eq!(long.removed.map(|removed| removed.text), odd);
    assert_eq!(tokenizer.encode("hi", 5).unwrap().ids, [3, 2, 4, 4, 4]);

    let pad = r#"{"padding_side": "left"}"#;
    let tokenizer = clip(&[("t/tokenizer_config.json", pad)]).unwrap();
    let short = tokenizer.encode("hi", 5).unwrap();
    assert!(short.attention_mask().eq([false, false, true, true, true]));
    assert_eq!(short.ids, [4, 4, 3, 2, 4]);
    assert_eq!(tokenizer.encode("hi hi hi", 4).unwrap().ids, [3, 2, 2, 4]);

    let json = t5_json("null").replacen('{', r#"{"padding":{"direction":"Left"},"#, 1);
    let read = |config: &str| {
        let files = [
            ("t/tokenizer.json", json.as_str()),
            ("t/tokenizer_config.json", config),
        ];
        Tokenizer::read(&source(&files), "t", "T5Tokenizer")
    };
    let ids = |config| read(config).unwrap().encode("a", 4).unwrap().ids;
    assert_eq!(ids("{}"), [0, 0, 4, 1]);
    assert_eq!(ids(r#"{"padding_side": "right"}"#), [4, 1, 0, 0]);
    let error = read(r#"{"padding_side": "middle"}"#)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("padding_side") && error.contains("left"),
        "{error}"
    );
}

#[test]
fn tokenizer_json_goes_before_vocab_json() {
    let json = r#"{"model":{"type":"BPE","vocab":{"h":0,"i</w>":1,"<|startoftext|>":2,"<|endoftext|>":3},
        "merges":[["h","i</w>"]]},"added_tokens":[]}"#;
    let error = clip(&[("t/tokenizer.json", json)]).unwrap_err().to_string();
    assert!(
        error.starts_with("memory:t/tokenizer.json: `model.merges`: "),
        "a merge outside the vocabulary: {error}"
    );
    let json = json.replace(r#"["h","i</w>"]"#, "");
    assert_eq!(
        clip(&[("t/tokenizer.json", &json)])
            .unwrap()
            .encode("hi", 4)
            .unwrap()
            .ids,
        [2, 0, 1, 3]
    );
}

#[test]
fn t5_ends_with_its_end_token() {
    let json = t5_json("null");
    let tokenizer = Tokenizer::read(
        &source(&[("t/tokenizer.json", &json)]),
        "t",
        "T5TokenizerFast",
    )
    .unwrap();
    assert_eq!(tokenizer.encode("ab a", 6).unwrap().ids, [4, 5, 4, 1, 0, 0]);
    assert_eq!(tokenizer.encode("ab a", 2).unwrap().ids, [4, 1]);
    // The sentinels come after the pieces, in the order of transformers when no file lists them.
    assert_eq!(tokenizer.encode("<extra_id_0>", 2).unwrap().ids, [6, 1]);
    assert_eq!(tokenizer.id_bound(), 106);
    assert_eq!(tokenizer.model_max_length(), None);
}

#[test]
fn configurations_name_the_special_tokens() {
    let config = r#"{"model_max_length": 77, "pad_token": "h", "added_tokens_decoder": {
        "0": {"content": "h", "special": true, "normalized": false}}}"#;
    let tokenizer = clip(&[("t/tokenizer_config.json", config)]).unwrap();
    assert_eq!(
        (tokenizer.pad_id(), tokenizer.model_max_length()),
        (0, Some(77))
    );
    let legacy = r#"{"pad_token": {"content": "hi</w>", "lstrip": false, "normalized": true}}"#;
    assert_eq!(
        clip(&[("t/special_tokens_map.json", legacy)])
            .unwrap()
            .pad_id(),
        2
    );
    let unlimited = r#"{"model_max_length": 1000000000000000019884624838656}"#;
    assert_eq!(
        clip(&[("t/tokenizer_config.json", unlimited)])
            .unwrap()
            .model_max_length(),
        None
    );
}

#[test]
fn broken_files_are_named() {
    for (path, text, part) in [
        ("t/vocab.json", "[", "t/vocab.json: not valid JSON"),
        ("t/vocab.json", "3", "t/vocab.json: not an object"),
        (
            "t/vocab.json",
            r#"{"a": -1}"#,
            "t/vocab.json: not an object",
        ),
        (
            "t/vocab.json",
            "{}",
            "bos_token `<|startoftext|>` is not in the vocabulary",
        ),
        (
            "t/merges.txt",
            "a b c",
            "t/merges.txt: line 1: a merge is not two tokens",
        ),
        (
            "t/merges.txt",
            "h x",
            "t/merges.txt: line 1: the merge token `x`",
        ),
        (
            "t/tokenizer.json",
            "{}",
            "t/tokenizer.json: `model.vocab` is no vocabulary",
        ),
        (
            "t/tokenizer_config.json",
            "[]",
            "t/tokenizer_config.json: expected a JSON object",
        ),
    ] {
        let error = clip(&[(path, text)]).unwrap_err().to_string();
        assert!(
            error.contains(part) && !error.contains('\n'),
            "{path} {text}: {error}"
        );
    }
    let read = |files: &[(&str, &str)], class| {
        Tokenizer::read(&source(files), "t", class)
            .unwrap_err()
            .to_string()
    };
    assert!(read(&[], "CLIPTokenizer").contains("t/vocab.json: no such file"));
    assert!(read(&[], "T5Tokenizer").contains("t/spiece.model: no such file"));
    assert!(read(&[("t/spiece.model", "x")], "T5Tokenizer").contains("t/spiece.model: corrupt"));
    assert!(
        read(&[("t/tokenizer.json", "{}")], "TokenizersBackend")
            .contains("t/tokenizer.json: not a tokenizer")
    );
    assert!(read(&[], "LlamaTokenizer").contains("supported: CLIPTokenizer, T5Tokenizer"));
    let map = t5_json(r#"{"type":"Precompiled","precompiled_charsmap":"////////"}"#);
    for class in ["T5Tokenizer", "TokenizersBackend"] {
        let error = read(&[("t/tokenizer.json", &map)], class);
        assert!(error.contains("corrupt precompiled_charsmap"), "{error}");
    }
}

#[test]
fn ids_beyond_the_embedding_are_refused() {
    let tokenizer = clip(&[]).unwrap();
    assert_eq!(
        tokenizer
            .clone()
            .with_vocab_size(5)
            .encode("hi", 3)
            .unwrap()
            .ids,
        [3, 2, 4]
    );
    let error = tokenizer
        .with_vocab_size(4)
        .encode("hi", 3)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("memory:t: ")
            && error.contains("id 4 is beyond the text encoder's vocabulary of 4"),
        "{error}"
    );
}

#[test]
fn a_sentencepiece_model_is_followed_by_its_sentinels() {
    // Pieces `<pad>`, `</s>` (control), `<unk>` and `▁a`, as protobuf fields 1 with text 1, score 2, type 3.
    let piece = |text: &str, kind: u8| {
        let fields = [
            &[0x0a, text.len() as u8][..],
            text.as_bytes(),
            &[0x15, 0, 0, 0, 0, 0x18, kind],
        ]
        .concat();
        [&[0x0a, fields.len() as u8][..], &fields].concat()
    };
    let model = [
        piece("<pad>", 3),
        piece("</s>", 3),
        piece("<unk>", 2),
        piece("▁a", 1),
    ]
    .concat();
    let source = ModelSource::memory([("t/spiece.model", model)]);
    let tokenizer = Tokenizer::read(&source, "t", "T5Tokenizer").unwrap();
    // transformers 5 puts <extra_id_99> first.
    assert_eq!(
        tokenizer
            .encode("a <extra_id_0><extra_id_99>", 5)
            .unwrap()
            .ids,
        [3, 103, 4, 1, 0]
    );
}
