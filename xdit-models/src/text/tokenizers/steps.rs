//! The steps before and after a model: normalizer, pre-tokenizer and decoder of a `tokenizer.json`.
//!
//! The steps of the tokenizers library run one at a time, so that the growth of a text can be measured. Steps without a bound
//! of their own (`Replace`, `Prepend`, `Precompiled`, `Split`) are measured before they run.

use ::tokenizers::normalizers::Precompiled;
use ::tokenizers::pre_tokenizers::PreTokenizerWrapper;
use ::tokenizers::{
    Decoder as _, DecoderWrapper, NormalizedString, Normalizer as _, NormalizerWrapper,
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, SplitDelimiterBehavior,
    pattern::Invert,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::limits::Effort;
use super::search::{FoundMatches, Search};
use super::{charsmap, json};
use crate::error::shorten;
use crate::quote;

/// The longest text of tokens in a message, in bytes.
const MAX_DECODED_BYTES: usize = 256 << 10;

type LibraryResult<T> = Result<T, ::tokenizers::Error>;

fn library<T>(result: LibraryResult<T>) -> Result<T, String> {
    result.map_err(|error| quote::reason(&error.to_string()))
}

/// Reads a step of the library from its JSON.
fn leaf<T: DeserializeOwned>(step: &Value, name: &str) -> Result<T, String> {
    serde_json::from_value(step.clone())
        .map_err(|error| format!("`{name}`: {}", shorten(&error.to_string())))
}

/// Returns a text of the step, such as `content`.
fn text(step: &Value, key: &str, name: &str) -> Result<String, String> {
    let text = step[key].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("`{name}`: {} without a text `{key}`", step["type"]))
}

/// Normalizes a prompt before it is split into words.
#[derive(Debug, Default)]
pub(super) struct Normalizer(Vec<Normalize>);

#[derive(Debug)]
pub(super) enum Normalize {
    Replace(Search, String),
    Prepend(String),
    Charsmap(Precompiled),
    /// A step that makes a text at most eleven times as long.
    Leaf(NormalizerWrapper),
}

impl Normalizer {
    pub(super) fn new(steps: Vec<Normalize>) -> Self {
        Self(steps)
    }

    /// Reads the part `normalizer` of a `tokenizer.json`.
    pub(super) fn of_json(value: &Value) -> Result<Self, String> {
        const NAME: &str = "normalizer";
        let steps = json::steps(value, NAME, "normalizers")?.into_iter();
        let steps = steps.map(|step| {
            Ok(match step["type"].as_str() {
                Some("Replace") => Normalize::Replace(
                    Search::of_json(&step["pattern"])?,
                    text(step, "content", NAME)?,
                ),
                Some("Prepend") => Normalize::Prepend(text(step, "prepend", NAME)?),
                Some("Precompiled") => {
                    let map = charsmap::of_step(step)?.ok_or("Precompiled without a charsmap")?;
                    Normalize::Charsmap(charsmap::precompiled(&map)?)
                }
                _ => Normalize::Leaf(leaf(step, NAME)?),
            })
        });
        Ok(Self(steps.collect::<Result<_, String>>()?))
    }

    /// Changes `text`, which may become `longest` bytes long.
    pub(super) fn apply(
        &self,
        text: &mut NormalizedString,
        longest: usize,
        effort: &Effort,
    ) -> Result<(), String> {
        let check = |len: usize| {
            let error = || {
                let longest = quote::bytes(longest as u64);
                format!("`normalizer` makes more than {longest} of a prompt")
            };
            (len <= longest).then_some(()).ok_or_else(error)
        };
        for step in &self.0 {
            match step {
                Normalize::Replace(search, content) => {
                    let matches = search.matches(text.get(), effort)?;
                    let lens = matches.iter().map(|((start, end), found)| match found {
                        true => content.len(),
                        false => end - start,
                    });
                    check(lens.sum())?;
                    library(text.replace(FoundMatches::new(matches), content))?;
                }
                Normalize::Prepend(start) => {
                    check(text.len() + start.len())?;
                    if !text.is_empty() {
                        text.prepend(start);
                    }
                }
                Normalize::Charsmap(map) => {
                    check(charsmap::mapped_len(map, text.get()))?;
                    library(map.normalize(text))?;
                }
                Normalize::Leaf(step) => library(step.normalize(text))?,
            }
            check(text.len())?;
        }
        Ok(())
    }
}

/// Splits a text into words.
#[derive(Debug, Default)]
pub(super) struct PreTokenizer(Vec<PreTokenize>);

#[derive(Debug)]
pub(super) enum PreTokenize {
    Split {
        search: Search,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    /// A step that makes a text at most four times as long, and adds a few bytes for each word.
    Leaf(PreTokenizerWrapper),
}

impl PreTokenizer {
    pub(super) fn new(steps: Vec<PreTokenize>) -> Self {
        Self(steps)
    }

    /// Reads the part `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn of_json(value: &Value) -> Result<Self, String> {
        const NAME: &str = "pre_tokenizer";
        let steps = json::steps(value, NAME, "pretokenizers")?.into_iter();
        let steps = steps.map(|step| {
            Ok(match step["type"].as_str() {
                Some("Split") => PreTokenize::Split {
                    search: Search::of_json(&step["pattern"])?,
                    behavior: leaf(&step["behavior"], NAME)?,
                    invert: leaf(&step["invert"], NAME)?,
                },
                // The library divides by this value.
                Some("FixedLength") if step["length"] == 0 => {
                    return Err(format!("`{NAME}`: FixedLength with a `length` of 0"));
                }
                _ => PreTokenize::Leaf(leaf(step, NAME)?),
            })
        });
        Ok(Self(steps.collect::<Result<_, String>>()?))
    }

    /// Returns the words of `text`, which together may have `longest` bytes.
    pub(super) fn words(
        &self,
        text: NormalizedString,
        longest: usize,
        effort: &Effort,
    ) -> Result<PreTokenizedString, String> {
        let mut words = PreTokenizedString::from(text);
        for step in &self.0 {
            library(match step {
                PreTokenize::Split {
                    search,
                    behavior,
                    invert,
                } => words.split(|_, text| {
                    let found = FoundMatches::new(search.matches(text.get(), effort)?);
                    match invert {
                        true => text.split(Invert(found), *behavior),
                        false => text.split(found, *behavior),
                    }
                }),
                PreTokenize::Leaf(step) => step.pre_tokenize(&mut words),
            })?;
            let len: usize = texts(&words).map(str::len).sum();
            if len > longest {
                return Err(format!(
                    "`pre_tokenizer` makes more than {} of a prompt",
                    quote::bytes(longest as u64)
                ));
            }
        }
        Ok(words)
    }
}

/// The texts of `words`.
pub(super) fn texts(words: &PreTokenizedString) -> impl Iterator<Item = &str> {
    words
        .get_splits(OffsetReferential::Normalized, OffsetType::None)
        .into_iter()
        .map(|(text, ..)| text)
}

/// Converts tokens back to text.
#[derive(Debug, Default)]
pub(super) struct Decoder(Vec<Decode>);

#[derive(Debug)]
pub(super) enum Decode {
    Replace(Search, String),
    Leaf(DecoderWrapper),
}

impl Decoder {
    pub(super) fn new(step: impl Into<DecoderWrapper>) -> Self {
        Self(vec![Decode::Leaf(step.into())])
    }

    /// Reads the part `decoder` of a `tokenizer.json`.
    pub(super) fn of_json(value: &Value) -> Result<Self, String> {
        const NAME: &str = "decoder";
        let steps = json::steps(value, NAME, "decoders")?.into_iter();
        let steps = steps.map(|step| {
            Ok(match step["type"].as_str() {
                Some("Replace") => Decode::Replace(
                    Search::of_json(&step["pattern"])?,
                    text(step, "content", NAME)?,
                ),
                _ => Decode::Leaf(leaf(step, NAME)?),
            })
        });
        Ok(Self(steps.collect::<Result<_, String>>()?))
    }

    /// Returns the text of `tokens`, unless it is too long.
    pub(super) fn decode(&self, mut tokens: Vec<String>) -> Option<String> {
        let effort = Effort::new(0);
        for step in &self.0 {
            tokens = match step {
                Decode::Leaf(step) => step.decode_chain(tokens).ok()?,
                Decode::Replace(search, content) => {
                    let mut room = MAX_DECODED_BYTES;
                    let replaced = tokens.iter().map(|token| {
                        let mut text = String::new();
                        for ((start, end), found) in search.matches(token, &effort).ok()? {
                            let part = if found { content } else { &token[start..end] };
                            room = room.checked_sub(part.len())?;
                            text.push_str(part);
                        }
                        Some(text)
                    });
                    replaced.collect::<Option<_>>()?
                }
            };
            let len: usize = tokens.iter().map(String::len).sum();
            if len > MAX_DECODED_BYTES {
                return None;
            }
        }
        let between = if self.0.is_empty() { " " } else { "" };
        Some(tokens.join(between))
    }
}
