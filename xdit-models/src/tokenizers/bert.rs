//! `BertTokenizer`: WordPiece over words, punctuation and single Chinese characters
//! (transformers `models/bert/tokenization_bert.py`).
//!
//! As in transformers 5, `never_split` and `do_basic_tokenize` have no effect: special tokens are found before words are split.

use ::tokenizers::Tokenizer as Inner;
use ::tokenizers::decoders::wordpiece::WordPiece as Decoder;
use ::tokenizers::models::wordpiece::WordPiece;
use ::tokenizers::normalizers::BertNormalizer;
use ::tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use ::tokenizers::processors::template::TemplateProcessing;
use serde_json::Value;

use super::added::SpecialTokens;
use super::clip::{read_json, vocab};
use super::{MAX_TOKENIZER_BYTES, Tokenizer, tokenizer_config};
use crate::config::ConfigFile;
use crate::error::{Error, Result, shorten};
use crate::source::ModelSource;

/// What the class gives when no file names its special tokens.
const DEFAULTS: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// The tokenizer in the folder `component`: its vocabulary from `tokenizer.json`, else from `vocab.txt`.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    let (path, json, vocab) = if source.exists(&path) {
        let json = read_json(source, &path)?;
        let vocab = vocab(&json["model"]["vocab"]).ok_or_else(|| {
            Error::bad_file(source.shown(&path), "`model.vocab` is no vocabulary")
        })?;
        (path, Some(json), vocab)
    } else {
        let path = format!("{component}/vocab.txt");
        let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
        let vocab = WordPiece::read_bytes(&bytes)
            .map_err(|error| Error::bad_file(source.shown(&path), error.to_string()))?;
        (path, None, vocab)
    };
    let special = SpecialTokens::read(source, component, &DEFAULTS, json.as_ref())?;
    let unk = special.content("unk_token").unwrap_or_default().to_owned();
    if !vocab.contains_key(&unk) {
        let reason = format!("unk_token `{}` is not in the vocabulary", shorten(&unk));
        return Err(Error::bad_file(source.shown(&path), reason));
    }
    let bad = |reason: String| Error::bad_file(source.shown(component), reason);
    let text = |error: Box<dyn std::error::Error + Send + Sync>| bad(shorten(&error.to_string()));
    let model = WordPiece::builder().vocab(vocab).unk_token(unk).build();
    let mut inner = Inner::new(model.map_err(text)?);
    let normalizer = normalizer(&tokenizer_config(source, component)?)?;
    inner.with_normalizer(Some(normalizer)).map_err(text)?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_decoder(Some(Decoder::new("##".into(), true)));
    let mut tokenizer = Tokenizer::finish(inner, &special, source, component)?;
    let around = ["cls_token", "sep_token"].map(|name| {
        let token = special.content(name).unwrap_or_default().to_owned();
        match tokenizer.inner.token_to_id(&token) {
            Some(id) => Ok((token, id)),
            None => Err(bad(format!("{name} `{}` has no id", shorten(&token)))),
        }
    });
    let [cls, sep] = around;
    let (cls, sep) = (cls?, sep?);
    let template = TemplateProcessing::builder()
        .try_single(format!("{}:0 $A:0 {}:0", cls.0, sep.0))
        .map_err(bad)?
        .special_tokens(vec![cls, sep])
        .build()
        .map_err(|error| bad(error.to_string()))?;
    tokenizer.inner.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// What becomes of a prompt before it is split: control characters go, Chinese characters stand apart, accents and capitals go.
fn normalizer(config: &ConfigFile) -> Result<BertNormalizer> {
    let strip_accents = match config.value("strip_accents") {
        None | Some(Value::Null) => None,
        Some(_) => Some(config.flag("strip_accents", false)?),
    };
    Ok(BertNormalizer::new(
        true,
        config.flag("tokenize_chinese_chars", true)?,
        strip_accents,
        config.flag("do_lower_case", true)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids are lines, from 0.
    const VOCAB: &str =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n猫\n画\ncaf\n##e\n##é\na\nA\ncat\n##s\n,\n，\n";

    fn read(files: &[(&str, &str)]) -> Result<Tokenizer> {
        let bytes = files
            .iter()
            .map(|(path, text)| (*path, text.as_bytes().to_vec()));
        Tokenizer::read(&ModelSource::memory(bytes), "t", "BertTokenizer")
    }

    /// The ids of a prompt between `[CLS]` and `[SEP]`, with this `tokenizer_config.json`.
    fn ids(config: &str, prompt: &str) -> Vec<u32> {
        let files = [("t/vocab.txt", VOCAB), ("t/tokenizer_config.json", config)];
        let encoded = read(&files).unwrap().encode(prompt, 30).unwrap();
        encoded.ids[1..encoded.len - 1].to_vec()
    }

    #[test]
    fn prompts_are_split_as_the_configuration_says() {
        // Chinese characters stand apart, accents and capitals go, control characters too.
        assert_eq!(
            ids("{}", "画A猫, cats，CAFÉ\u{7}"),
            [6, 10, 5, 14, 12, 13, 15, 7, 8]
        );
        assert_eq!(ids("{}", "画猫 dog"), [6, 5, 1]);
        assert_eq!(ids(r#"{"tokenize_chinese_chars": false}"#, "画猫"), [1]);
        assert_eq!(ids(r#"{"do_lower_case": false}"#, "A café"), [11, 7, 9]);
        let kept = r#"{"strip_accents": false, "do_lower_case": true}"#;
        assert_eq!(ids(kept, "CAFÉ"), [7, 9]);
        assert_eq!(ids(r#"{"strip_accents": null}"#, "CAFÉ"), [7, 8]);
        // Special tokens are found before words are split; a word of more than 100 characters is unknown.
        assert_eq!(ids("{}", "a[MASK]a [mask]"), [10, 4, 10, 1, 1, 1]);
        assert_eq!(ids("{}", &"a".repeat(101)), [1]);
    }

    #[test]
    fn prompts_are_padded_and_cut_with_their_mask() {
        let tokenizer = read(&[("t/vocab.txt", VOCAB)]).unwrap();
        let short = tokenizer.encode("猫", 5).unwrap();
        assert_eq!(short.ids, [2, 5, 3, 0, 0]);
        assert!(short.attention_mask().eq([true, true, true, false, false]));
        let long = tokenizer.encode("猫 cats 画", 4).unwrap();
        assert_eq!(long.ids, [2, 5, 12, 3]);
        assert!(long.attention_mask().all(|seen| seen));
        let removed = long.removed.unwrap();
        assert_eq!((removed.tokens, removed.text.as_str()), (2, "##s 画"));
        // A padding token of the prompt itself is text.
        assert_eq!(tokenizer.encode("[PAD]", 4).unwrap().len, 3);
    }

    #[test]
    fn tokenizer_json_gives_the_vocabulary_alone() {
        let json = r#"{"added_tokens": [], "normalizer": {"type": "Lowercase"}, "model": {"type": "WordPiece",
            "vocab": {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "猫": 5, "A": 6}}}"#;
        let config = r#"{"do_lower_case": false, "sep_token": "<end>"}"#;
        let files = [
            ("t/tokenizer.json", json),
            ("t/tokenizer_config.json", config),
        ];
        let tokenizer = read(&files).unwrap();
        // A special token that the vocabulary has not comes after it.
        assert_eq!(tokenizer.encode("A猫", 5).unwrap().ids, [2, 6, 5, 7, 1]);
    }

    #[test]
    fn broken_files_are_named() {
        let config = |text| vec![("t/vocab.txt", VOCAB), ("t/tokenizer_config.json", text)];
        for (files, part) in [
            (vec![], "t/vocab.txt: no such file"),
            (
                vec![("t/vocab.txt", "a\nb\n")],
                "t/vocab.txt: unk_token `[UNK]` is not in the vocabulary",
            ),
            (
                vec![("t/tokenizer.json", "{}")],
                "t/tokenizer.json: `model.vocab` is no vocabulary",
            ),
            (config(r#"{"do_lower_case": 1}"#), "`do_lower_case`"),
            (config(r#"{"strip_accents": "no"}"#), "`strip_accents`"),
            (config(r#"{"cls_token": "a:b c"}"#), "memory:t: "),
        ] {
            let error = read(&files).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
        let source = ModelSource::memory([("t/vocab.txt", b"\xff\n".to_vec())]);
        assert!(Tokenizer::read(&source, "t", "BertTokenizerFast").is_err());
    }
}
