//! Special and added tokens: what `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and
//! `tokenizer.json` say about them, put together as transformers 5 does (`tokenization_utils_base.py`,
//! `_from_pretrained`, and `tokenization_utils_tokenizers.py`, `__init__`).

use std::collections::{BTreeMap, HashSet};

use ::tokenizers::AddedToken;
use serde::Deserialize;
use serde_json::Value;

use super::added_vocabulary::AddedVocabulary;
use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::source::ModelSource;

/// The named special tokens, in the order of their addition.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The special and added tokens of a tokenizer.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    named: BTreeMap<&'static str, AddedToken>,
    /// Tokens by id.
    decoder: BTreeMap<u32, AddedToken>,
    extra: Option<Vec<AddedToken>>,
    /// The number of sentinels of a T5.
    extra_ids: usize,
    model_max_length: Option<usize>,
    /// Whether `padding_side` is `left`.
    pub(super) pads_left: bool,
    /// Whether `truncation_side` is `left`.
    pub(super) truncates_left: bool,
}

/// The facts of a `tokenizer.json` besides its model and steps.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The added tokens with their ids.
    pub(super) added: Vec<(Option<u32>, AddedToken)>,
    pub(super) padding: Value,
    pub(super) truncation: Value,
}

/// `tokenizer_config.json` of the folder `component`, or an empty one.
pub(super) fn tokenizer_config(source: &ModelSource, component: &str) -> Result<ConfigFile> {
    let path = format!("{component}/tokenizer_config.json");
    if source.exists(&path) {
        source.config(&path)
    } else {
        ConfigFile::parse(source.shown(&path), b"{}")
    }
}

/// Returns the longest sequence of the model, if `tokenizer_config.json` contains it. transformers writes 1e30 for "no limit".
pub(super) fn model_max_length(config: &ConfigFile) -> Option<usize> {
    config.count("model_max_length", None, 1..=1 << 30).ok()
}

impl SpecialTokens {
    /// Reads the files of `component`. `defaults` are the default names of the Python class. `tokenizer` is the content of a
    /// `tokenizer.json`, if there is one.
    pub(super) fn read(
        source: &ModelSource,
        component: &str,
        defaults: &[(&'static str, &str)],
        tokenizer: Option<&Listed>,
    ) -> Result<Self> {
        let config = tokenizer_config(source, component)?;
        let mut special = Self {
            named: defaults
                .iter()
                .map(|(name, token)| (*name, AddedToken::from(*token, true)))
                .collect(),
            decoder: BTreeMap::new(),
            extra: extra_tokens(&config),
            extra_ids: config.count("extra_ids", Some(100), 0..=10_000)?,
            model_max_length: model_max_length(&config),
            pads_left: is_left(&config, "padding", tokenizer.map(|listed| &listed.padding))?,
            truncates_left: is_left(
                &config,
                "truncation",
                tokenizer.map(|listed| &listed.truncation),
            )?,
        };
        special.named_from(&config, false);
        if let Some(Value::Object(decoder)) = config.value("added_tokens_decoder") {
            let tokens = decoder
                .iter()
                .filter_map(|(id, token)| Some((id.parse().ok()?, added_token(token, None)?)));
            special.decoder.extend(tokens);
        } else {
            special.read_legacy(source, component, tokenizer)?;
        }
        let by_content: BTreeMap<&str, _> = special
            .decoder
            .values()
            .map(|token| (token.content.as_str(), token))
            .collect();
        for token in special.named.values_mut() {
            if let Some(known) = by_content.get(token.content.as_str()) {
                *token = (*known).clone();
            }
        }
        Ok(special)
    }

    /// Reads the files of versions before `added_tokens_decoder`.
    fn read_legacy(
        &mut self,
        source: &ModelSource,
        component: &str,
        tokenizer: Option<&Listed>,
    ) -> Result<()> {
        let path = format!("{component}/special_tokens_map.json");
        if source.exists(&path) {
            let map = source.config(&path)?;
            self.named_from(&map, true);
            self.extra = extra_tokens(&map).or(self.extra.take());
        }
        let path = format!("{component}/added_tokens.json");
        if source.exists(&path) {
            let map = source.config(&path)?;
            let special: HashSet<String> = self.all().map(|token| token.content.clone()).collect();
            for content in map.fields() {
                if let Some(id) = map
                    .value(content)
                    .and_then(Value::as_u64)
                    .and_then(|id| u32::try_from(id).ok())
                {
                    self.decoder
                        .insert(id, AddedToken::from(content, special.contains(content)));
                }
            }
        }
        let added = tokenizer.into_iter().flat_map(|listed| &listed.added);
        self.decoder
            .extend(added.filter_map(|(id, token)| Some(((*id)?, token.clone()))));
        Ok(())
    }

    fn named_from(&mut self, config: &ConfigFile, legacy: bool) {
        for name in NAMES {
            let special = legacy.then_some(true);
            if let Some(token) = config
                .value(name)
                .and_then(|value| added_token(value, special))
            {
                self.named.insert(name, token);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &AddedToken> {
        self.named.values().chain(self.extra.iter().flatten())
    }

    /// Returns the text of the named token, such as `eos_token`.
    pub(super) fn content(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(|token| token.content.as_str())
    }

    /// Returns the text of the padding token.
    pub(super) fn pad(&self) -> Option<&str> {
        self.content("pad_token")
    }

    /// Uses `pad` if no file names a padding token.
    pub(super) fn default_pad(&mut self, pad: Option<String>) {
        if let Some(pad) = pad {
            self.named
                .entry("pad_token")
                .or_insert_with(|| AddedToken::from(pad, true));
        }
    }

    /// Adds the sentinels `<extra_id_…>` of a T5 after `first`, if no file lists such tokens.
    pub(super) fn default_sentinels(&mut self, first: Vec<AddedToken>) {
        if self.extra.is_none() {
            let sentinels =
                (0..self.extra_ids).map(|i| AddedToken::from(format!("<extra_id_{i}>"), true));
            self.extra = Some(first.into_iter().chain(sentinels).collect());
        }
    }

    /// Returns the number of sentinels `<extra_id_…>` of a T5.
    pub(super) fn extra_ids(&self) -> usize {
        self.extra_ids
    }

    /// Returns the longest sequence of the model.
    pub(super) fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Returns the tokens to add to those that are `present`, in order.
    pub(super) fn to_add(&self, present: &AddedVocabulary) -> Vec<AddedToken> {
        let mut known: HashSet<&str> = present
            .tokens()
            .values()
            .map(|token| token.content.as_str())
            .collect();
        let mut tokens: Vec<AddedToken> = Vec::new();
        for token in self.decoder.values() {
            let other = present.token(&token.content);
            if !other.is_some_and(|other| same(other, token)) {
                tokens.push(token.clone());
                known.insert(&token.content);
            }
        }
        let named = NAMES.iter().filter_map(|name| self.named.get(name));
        for token in named.chain(self.extra.iter().flatten()) {
            if known.insert(&token.content) {
                tokens.push(token.clone());
            }
        }
        let names: HashSet<&str> = self
            .named
            .values()
            .map(|token| token.content.as_str())
            .collect();
        for token in &mut tokens {
            token.special |= names.contains(token.content.as_str());
        }
        tokens
    }
}

/// Returns whether `what` is done on the left, according to `tokenizer_config.json` or else `tokenizer.json`. Most files do not
/// say it.
fn is_left(config: &ConfigFile, what: &str, listed: Option<&Value>) -> Result<bool> {
    let side = listed.and_then(|part| part["direction"].as_str());
    let default = match side {
        Some("Left") => "left",
        _ => "right",
    };
    let sides = [("left", true), ("right", false)];
    config.choice(&format!("{what}_side"), default, &sides)
}

/// Returns whether two tokens have the same options. The comparison of the library looks only at the content.
fn same(a: &AddedToken, b: &AddedToken) -> bool {
    a.content == b.content
        && (a.special, a.normalized, a.lstrip, a.rstrip, a.single_word)
            == (b.special, b.normalized, b.lstrip, b.rstrip, b.single_word)
}

/// A token in the form of files.
#[derive(Debug, Deserialize)]
pub(super) struct WrittenToken {
    id: Option<u32>,
    content: String,
    special: Option<bool>,
    single_word: Option<bool>,
    lstrip: Option<bool>,
    rstrip: Option<bool>,
    normalized: Option<bool>,
}

impl WrittenToken {
    pub(super) fn id(&self) -> Option<u32> {
        self.id
    }

    pub(super) fn token(self) -> AddedToken {
        let token = AddedToken::from(self.content, self.special.unwrap_or(false))
            .single_word(self.single_word.unwrap_or(false))
            .lstrip(self.lstrip.unwrap_or(false))
            .rstrip(self.rstrip.unwrap_or(false));
        match self.normalized {
            Some(normalized) => token.normalized(normalized),
            None => token,
        }
    }
}

/// Reads a token from its text or its object. A text is a special token. `special` overrides the value of an object.
fn added_token(value: &Value, special: Option<bool>) -> Option<AddedToken> {
    match value {
        Value::String(content) => Some(AddedToken::from(content.clone(), true)),
        Value::Object(_) => {
            let written = WrittenToken::deserialize(value).ok()?;
            let special = special.or(written.special);
            Some(WrittenToken { special, ..written }.token())
        }
        _ => None,
    }
}

/// `extra_special_tokens`, or `additional_special_tokens` as it was called before, when it lists any.
fn extra_tokens(config: &ConfigFile) -> Option<Vec<AddedToken>> {
    let list = |field: &str| match config.value(field) {
        Some(Value::Array(list)) => Some(
            list.iter()
                .filter_map(|token| added_token(token, None))
                .collect::<Vec<_>>(),
        ),
        _ => None,
    };
    let extra = list("extra_special_tokens");
    if extra.as_ref().is_some_and(|tokens| !tokens.is_empty()) {
        extra
    } else {
        list("additional_special_tokens").or(extra)
    }
}
