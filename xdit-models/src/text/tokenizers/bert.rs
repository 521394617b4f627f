//! `BertTokenizer`: WordPiece over words, punctuation and single Chinese characters
//! (transformers `models/bert/tokenization_bert.py`).
//!
//! As in transformers 5, `never_split` and `do_basic_tokenize` have no effect, because special tokens are found before words
//! are split.

use ::tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use ::tokenizers::normalizers::BertNormalizer;
use ::tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use serde_json::Value;

use super::added::{SpecialTokens, tokenizer_config};
use super::engine::{Engine, TokenModel};
use super::limits::MAX_TOKENIZER_BYTES;
use super::steps::{Decoder, Normalize, Normalizer, PreTokenize, PreTokenizer};
use super::template::Template;
use super::tokenizer::Tokenizer;
use super::vocabulary::{Entries, Vocabulary};
use super::whole::Parts;
use super::wordpiece::WordPiece;
use crate::error::{Error, Result, shorten};
use crate::files::config::ConfigFile;
use crate::files::source::ModelSource;

/// The default special tokens of the class.
const DEFAULTS: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// Reads the tokenizer in the folder `component`: its vocabulary from `tokenizer.json`, or else from `vocab.txt`.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let json = format!("{component}/tokenizer.json");
    let path = match source.exists(&json) {
        true => json,
        false => format!("{component}/vocab.txt"),
    };
    let shown = source.shown(&path);
    let bad = |reason: String| Error::bad_file(&shown, reason);
    let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
    let (entries, listed) = if path.ends_with(".json") {
        let parts = Parts::of(&bytes, &shown)?;
        let [vocab] = parts.model(&shown, ["vocab"])?;
        let vocab = vocab.ok_or("none".to_string()).and_then(Entries::of_json);
        let vocab =
            vocab.map_err(|error| bad(format!("`model.vocab` is no vocabulary: {error}")))?;
        (vocab, Some(parts.listed().map_err(bad)?))
    } else {
        let text =
            std::str::from_utf8(&bytes).map_err(|error| bad(format!("not UTF-8: {error}")))?;
        (Entries::of_lines(text).map_err(bad)?, None)
    };
    let vocabulary = Vocabulary::new(entries);
    let special = SpecialTokens::read(source, component, &DEFAULTS, listed.as_ref())?;
    let unk_token = special.content("unk_token").unwrap_or_default().to_owned();
    if vocabulary.id(&unk_token).is_none() {
        return Err(bad(format!(
            "unk_token `{}` is not in the vocabulary",
            shorten(&unk_token)
        )));
    }
    let bad = |reason: String| Error::bad_file(source.shown(component), reason);
    let mut engine = Engine::new(TokenModel::WordPiece(WordPiece {
        vocabulary,
        unk_token,
        prefix: "##".into(),
        longest_word: 100,
    }))
    .map_err(bad)?;
    let steps = normalizer(&tokenizer_config(source, component)?)?;
    engine.normalizer = Normalizer::new(vec![Normalize::Leaf(steps.into())]);
    engine.pre_tokenizer = PreTokenizer::new(vec![PreTokenize::Leaf(BertPreTokenizer.into())]);
    engine.decoder = Decoder::new(WordPieceDecoder::new("##".into(), true));
    engine.add(special.to_add(&engine.added)).map_err(bad)?;
    let [before, after] = ["cls_token", "sep_token"].map(|name| {
        let token = special.content(name).unwrap_or_default();
        // transformers writes them into a template, which has its own marks.
        if token.contains([' ', ':']) || token.starts_with('$') {
            return Err(bad(format!(
                "{name} `{}` cannot stand in a template",
                shorten(token)
            )));
        }
        let id = engine.id(token);
        id.map(|id| vec![id])
            .ok_or_else(|| bad(format!("{name} `{}` has no id", shorten(token))))
    });
    engine.template = Template {
        before: before?,
        after: after?,
    };
    Tokenizer::finish(engine, &special, source, component, source.shown(component))
}

/// Normalizes a prompt before it is split: removes control characters, separates Chinese characters, and removes accents and
/// capitals.
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
