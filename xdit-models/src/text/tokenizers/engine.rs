//! A complete tokenizer: converts a prompt to ids in the steps of the tokenizers library (`tokenizer/mod.rs`,
//! `encode_single_sequence`).

use ::tokenizers::normalizer::Range as Place;
use ::tokenizers::{AddedToken, NormalizedString};

use super::added_vocabulary::AddedVocabulary;
use super::bpe::Bpe;
use super::limits::{Effort, grown};
use super::steps::{self, Decoder, Normalizer, PreTokenizer};
use super::template::Template;
use super::unigram::Unigram;
use super::vocabulary::Vocabulary;
use super::wordpiece::{WordLevel, WordPiece};

/// The model, which converts words to ids.
#[derive(Debug)]
pub(super) enum TokenModel {
    Unigram(Unigram),
    Bpe(Bpe),
    WordPiece(WordPiece),
    WordLevel(WordLevel),
}

impl TokenModel {
    pub(super) fn vocabulary(&self) -> &Vocabulary {
        match self {
            Self::Unigram(model) => &model.vocabulary,
            Self::Bpe(model) => &model.vocabulary,
            Self::WordPiece(model) => &model.vocabulary,
            Self::WordLevel(model) => &model.vocabulary,
        }
    }

    /// Returns the number of the model's ids. Added tokens come after them.
    fn size(&self) -> usize {
        match self {
            Self::Unigram(model) => model.vocabulary.listed(),
            _ => self.vocabulary().distinct(),
        }
    }

    fn encode(&self, word: &str, ids: &mut Vec<u32>, effort: &Effort) -> Result<(), String> {
        match self {
            Self::Unigram(model) => model.encode(word, ids, effort),
            Self::Bpe(model) => model.encode(word, ids),
            Self::WordPiece(model) => model.encode(word, ids, effort),
            Self::WordLevel(model) => model.encode(word, ids),
        }
    }
}

/// A tokenizer without the options of `tokenizer_config.json`.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) added: AddedVocabulary,
    pub(super) normalizer: Normalizer,
    pub(super) pre_tokenizer: PreTokenizer,
    pub(super) model: TokenModel,
    pub(super) template: Template,
    pub(super) decoder: Decoder,
}

impl Engine {
    /// `model` alone.
    pub(super) fn new(model: TokenModel) -> Result<Self, String> {
        Ok(Self {
            added: AddedVocabulary::new()?,
            normalizer: Normalizer::default(),
            pre_tokenizer: PreTokenizer::default(),
            model,
            template: Template::default(),
            decoder: Decoder::default(),
        })
    }

    /// Adds `tokens`.
    pub(super) fn add(&mut self, tokens: Vec<AddedToken>) -> Result<(), String> {
        let (model, size) = (self.model.vocabulary(), self.model.size());
        self.added.add(tokens, model, size, &self.normalizer)
    }

    /// Returns the id of the token `text`.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let model = || self.model.vocabulary().id(text);
        self.added.id(text).or_else(model)
    }

    /// Returns the highest id plus one.
    pub(super) fn id_bound(&self) -> usize {
        let added = self.added.tokens().keys().next_back();
        let model = self.model.vocabulary().id_bound();
        added.map_or(model, |id| model.max(*id as usize + 1))
    }

    /// Returns the ids of `prompt`, without special tokens around it.
    pub(super) fn encode(&self, prompt: &str) -> Result<Vec<u32>, String> {
        let effort = Effort::new(prompt.len());
        let mut room = grown(prompt.len());
        let mut ids = Vec::new();
        let whole = NormalizedString::from(prompt);
        for (id, place) in self.added.split_written(prompt, &effort)? {
            if let Some(id) = id {
                ids.push(id);
                continue;
            }
            let mut text = part(&whole, place)?;
            self.normalizer.apply(&mut text, room, &effort)?;
            for (id, place) in self.added.split_normalized(text.get(), &effort)? {
                if let Some(id) = id {
                    ids.push(id);
                    continue;
                }
                let words = self
                    .pre_tokenizer
                    .words(part(&text, place)?, room, &effort)?;
                for word in steps::texts(&words) {
                    self.model.encode(word, &mut ids, &effort)?;
                    // All parts together share one limit of growth.
                    room = room.saturating_sub(word.len());
                }
            }
        }
        Ok(ids)
    }

    /// Returns the text of `ids`, unless it is too long.
    pub(super) fn decode(&self, ids: &[u32]) -> Option<String> {
        let token = |id: &u32| {
            let added = self.added.tokens().get(id);
            let content = added.map(|token| token.content.as_str());
            Some(
                content
                    .or_else(|| self.model.vocabulary().piece(*id))?
                    .to_owned(),
            )
        };
        self.decoder.decode(ids.iter().filter_map(token).collect())
    }
}

/// Returns the part of `text` at `place`, with its origin.
fn part(
    text: &NormalizedString,
    place: std::ops::Range<usize>,
) -> Result<NormalizedString, String> {
    text.slice(Place::Normalized(place))
        .ok_or_else(|| "a token that ends inside a character".into())
}
