//! A `tokenizer.json`: its parts, and the tokenizer that it says, taken as it is.

use std::fmt;

use ::tokenizers::AddedToken;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::added::{self, Listed, SpecialTokens};
use super::bpe::{self, Bpe};
use super::engine::{Engine, TokenModel};
use super::json::{checked, members, part};
use super::limits::{MAX_ADDED_TOKENS, MAX_TOKENIZER_BYTES};
use super::steps::{Decoder, Normalizer, PreTokenizer};
use super::template::Template;
use super::tokenizer::Tokenizer;
use super::unigram::Unigram;
use super::vocabulary::{Entries, Vocabulary};
use super::wordpiece::{WordLevel, WordPiece};
use crate::error::{Error, Result, shorten};
use crate::files::source::ModelSource;

/// The parts of a `tokenizer.json`, as JSON.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    version: Option<&'a str>,
    truncation: Option<&'a str>,
    padding: Option<&'a str>,
    added_tokens: Option<&'a str>,
    normalizer: Option<&'a str>,
    pre_tokenizer: Option<&'a str>,
    post_processor: Option<&'a str>,
    decoder: Option<&'a str>,
    model: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// The parts in `bytes`, which were read from `shown`.
    pub(super) fn of(bytes: &'a [u8], shown: &str) -> Result<Self> {
        let bad = |reason: String| Error::bad_file(shown, reason);
        const NAMES: [&str; 9] = [
            "version",
            "truncation",
            "padding",
            "added_tokens",
            "normalizer",
            "pre_tokenizer",
            "post_processor",
            "decoder",
            "model",
        ];
        let found = members(checked(bytes).map_err(bad)?, NAMES);
        let found = found.ok_or_else(|| bad("not a tokenizer: not an object".into()))?;
        let [
            version,
            truncation,
            padding,
            added_tokens,
            normalizer,
            pre_tokenizer,
            post_processor,
            decoder,
            model,
        ] = found;
        Ok(Self {
            version,
            truncation,
            padding,
            added_tokens,
            normalizer,
            pre_tokenizer,
            post_processor,
            decoder,
            model,
        })
    }

    /// The members `names` of the model. Every class refuses a model that drops merges by chance.
    pub(super) fn model<const N: usize>(
        &self,
        shown: &str,
        names: [&str; N],
    ) -> Result<[Option<&'a str>; N]> {
        let model = self.model.unwrap_or("{}");
        if let Some([Some(dropout)]) = members(model, ["dropout"])
            && dropout.parse() != Ok(0.0)
        {
            return Err(Error::BadConfig {
                file: shown.into(),
                field: "model.dropout".into(),
                expected: "null or 0 (with another, each run would give other ids)".into(),
                found: shorten(dropout),
            });
        }
        Ok(members(model, names).unwrap_or([None; N]))
    }

    /// What becomes of a prompt before it is cut.
    pub(super) fn normalizer(&self) -> std::result::Result<Value, String> {
        part(self.normalizer, "normalizer")
    }

    /// Added tokens, padding and truncation.
    pub(super) fn listed(&self) -> std::result::Result<Listed, String> {
        let added = match self.added_tokens {
            None => Vec::new(),
            Some(json) => {
                let tokens: AddedTokens = serde_json::from_str(json)
                    .map_err(|error| format!("`added_tokens`: {}", shorten(&error.to_string())))?;
                tokens.0
            }
        };
        Ok(Listed {
            added,
            padding: part(self.padding, "padding")?,
            truncation: part(self.truncation, "truncation")?,
        })
    }
}

/// The added tokens of a `tokenizer.json`, a bounded number of them.
struct AddedTokens(Vec<(Option<u32>, AddedToken)>);

impl<'de> Deserialize<'de> for AddedTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = AddedTokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<AddedTokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = seq.next_element::<added::WrittenToken>()? {
                    if tokens.len() == MAX_ADDED_TOKENS {
                        let error = format!("more than {MAX_ADDED_TOKENS} added tokens");
                        return Err(A::Error::custom(error));
                    }
                    tokens.push((token.id(), token.token()));
                }
                Ok(AddedTokens(tokens))
            }
        }
        deserializer.deserialize_seq(ListVisitor)
    }
}

/// The tokenizer of a `tokenizer.json`, taken as it is.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
    let shown = source.shown(&path);
    let bad = |reason: String| Error::bad_file(&shown, reason);
    let parts = Parts::of(&bytes, &shown)?;
    if parts.version.is_some_and(|version| version != "\"1.0\"") {
        return Err(bad("not a tokenizer: an unknown `version`".into()));
    }
    let mut listed = parts.listed().map_err(bad)?;
    // They are the first to be added; no other file says anything else of them.
    let added = std::mem::take(&mut listed.added);
    let mut engine = Engine::new(model(&parts, &shown)?).map_err(bad)?;
    let steps = |engine: &mut Engine| {
        engine.normalizer = Normalizer::of_json(&parts.normalizer()?)?;
        engine.pre_tokenizer = PreTokenizer::of_json(&part(parts.pre_tokenizer, "pre_tokenizer")?)?;
        engine.template = Template::of_json(&part(parts.post_processor, "post_processor")?)?;
        engine.decoder = Decoder::of_json(&part(parts.decoder, "decoder")?)?;
        engine.add(added.into_iter().map(|(_, token)| token).collect())
    };
    steps(&mut engine).map_err(bad)?;
    let mut special = SpecialTokens::read(source, component, &[], Some(&listed))?;
    special.default_pad(listed.padding["pad_token"].as_str().map(str::to_owned));
    Tokenizer::finish(engine, &special, source, component, shown.clone())
}

/// The model of a `tokenizer.json`.
fn model(parts: &Parts<'_>, shown: &str) -> Result<TokenModel> {
    let bad = |reason: String| Error::bad_file(shown, reason);
    let [kind, vocab, unk_token, unk_id, byte_fallback] = parts.model(
        shown,
        ["type", "vocab", "unk_token", "unk_id", "byte_fallback"],
    )?;
    let [
        merges,
        prefix,
        suffix,
        fuse_unk,
        ignore_merges,
        longest_word,
    ] = parts.model(
        shown,
        [
            "merges",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "fuse_unk",
            "ignore_merges",
            "max_input_chars_per_word",
        ],
    )?;
    let vocab = vocab.ok_or_else(|| bad("not a tokenizer: no `model.vocab`".into()))?;
    let entries = Entries::of_json(vocab)
        .map_err(|error| bad(format!("`model.vocab` is no vocabulary: {error}")))?;
    let vocabulary = Vocabulary::new(entries);
    let unk_token = option::<String>(unk_token, "unk_token").map_err(bad)?;
    let byte_fallback = option(byte_fallback, "byte_fallback").map_err(bad)?;
    let byte_fallback = byte_fallback.unwrap_or(false);
    let prefix = option(prefix, "continuing_subword_prefix").map_err(bad)?;
    // The oldest files say no type.
    let kind = match kind {
        Some(kind) => kind,
        None if merges.is_some() => "\"BPE\"",
        None if longest_word.is_some() => "\"WordPiece\"",
        None if vocab.starts_with('[') => "\"Unigram\"",
        None => "\"WordLevel\"",
    };
    Ok(match kind {
        "\"Unigram\"" => {
            if vocabulary.scores().len() != vocabulary.listed() {
                return Err(bad("`model.vocab` is no list of pieces and scores".into()));
            }
            let unk_id = option(unk_id, "unk_id").map_err(bad)?;
            TokenModel::Unigram(Unigram::new(vocabulary, unk_id, byte_fallback).map_err(bad)?)
        }
        "\"BPE\"" => {
            let merges = merges.ok_or_else(|| bad("no `model.merges`".into()))?;
            let options = bpe::BpeOptions {
                unk_token,
                continuing_subword_prefix: prefix,
                end_of_word_suffix: option(suffix, "end_of_word_suffix").map_err(bad)?,
                fuse_unk: option(fuse_unk, "fuse_unk").map_err(bad)?.unwrap_or(false),
                byte_fallback,
                ignore_merges: option(ignore_merges, "ignore_merges")
                    .map_err(bad)?
                    .unwrap_or(false),
            };
            let model = Bpe::new(vocabulary, options, |list| list.push_json(merges));
            TokenModel::Bpe(model.map_err(|error| bad(format!("`model.merges`: {error}")))?)
        }
        "\"WordPiece\"" => TokenModel::WordPiece(WordPiece {
            vocabulary,
            unk_token: unk_token.unwrap_or_else(|| "[UNK]".into()),
            prefix: prefix.unwrap_or_else(|| "##".into()),
            longest_word: option(longest_word, "max_input_chars_per_word")
                .map_err(bad)?
                .unwrap_or(100),
        }),
        "\"WordLevel\"" => TokenModel::WordLevel(WordLevel {
            vocabulary,
            unk_token: unk_token.unwrap_or_else(|| "<unk>".into()),
        }),
        other => return Err(bad(format!("`model.type` {} is unknown", shorten(other)))),
    })
}

/// The value of the model's member `name`.
fn option<T: DeserializeOwned>(
    json: Option<&str>,
    name: &str,
) -> std::result::Result<Option<T>, String> {
    json.map(serde_json::from_str)
        .transpose()
        .map_err(|error| format!("`model.{name}`: {}", shorten(&error.to_string())))
}
