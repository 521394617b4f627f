//! Finds added tokens in a prompt before it is split into words (tokenizers `tokenizer/added_vocabulary.rs`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use ::tokenizers::{AddedToken, NormalizedString};

use super::limits::{Effort, MAX_ADDED_TOKENS, grown};
use super::search::Search;
use super::steps::Normalizer;
use super::vocabulary::{Entries, Vocabulary};
use crate::quote;

/// The largest number of bytes of all added tokens together.
const MAX_ADDED_BYTES: usize = 4 << 20;

/// The added tokens of a tokenizer.
#[derive(Debug)]
pub(super) struct AddedVocabulary {
    tokens: BTreeMap<u32, AddedToken>,
    ids: HashMap<String, u32>,
    /// The tokens that are searched in the original prompt.
    written: Vocabulary,
    /// The tokens that are searched in the normalized prompt. They are normalized too.
    normalized: Vocabulary,
    /// The pattern of a word.
    word: Search,
}

/// A piece of a text, with its id if it is a token.
pub(super) type TextPiece = (Option<u32>, Range<usize>);

impl AddedVocabulary {
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self {
            tokens: BTreeMap::new(),
            ids: HashMap::new(),
            written: Vocabulary::new(Entries::default()),
            normalized: Vocabulary::new(Entries::default()),
            word: Search::regex(r"\w")?,
        })
    }

    /// Returns the token `content`.
    pub(super) fn token(&self, content: &str) -> Option<&AddedToken> {
        self.tokens.get(self.ids.get(content)?)
    }

    /// Returns all tokens by their ids.
    pub(super) fn tokens(&self) -> &BTreeMap<u32, AddedToken> {
        &self.tokens
    }

    /// Returns the id of the token `content`.
    pub(super) fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// Adds `tokens`, with the model's id if `model` contains their text, otherwise after all other ids.
    pub(super) fn add(
        &mut self,
        tokens: Vec<AddedToken>,
        model: &Vocabulary,
        model_size: usize,
        normalizer: &Normalizer,
    ) -> Result<(), String> {
        let size = u32::try_from(model_size).map_err(|error| error.to_string())?;
        let last = self.tokens.keys().next_back().copied();
        let mut next = match last {
            Some(last) if last >= size || size == 0 => u64::from(last) + 1,
            _ => u64::from(size),
        };
        for token in tokens.into_iter().filter(|token| !token.content.is_empty()) {
            let known = self.ids.get(&token.content).copied();
            let id = match known.or_else(|| model.id(&token.content)) {
                Some(id) => id,
                None => {
                    next += 1;
                    u32::try_from(next - 1).map_err(|_| "an added token without an id left")?
                }
            };
            self.ids.insert(token.content.clone(), id);
            self.tokens.insert(id, token);
        }
        if self.ids.len() > MAX_ADDED_TOKENS {
            return Err(format!(
                "{} added tokens (at most {MAX_ADDED_TOKENS})",
                self.ids.len()
            ));
        }
        let (mut written, mut normalized) = (Entries::default(), Entries::default());
        let mut bytes = 0;
        for (id, token) in &self.tokens {
            let text = match token.normalized {
                false => token.content.clone(),
                true => normalize(&token.content, normalizer)?,
            };
            bytes += text.len();
            if bytes > MAX_ADDED_BYTES {
                let most = quote::bytes(MAX_ADDED_BYTES as u64);
                return Err(format!("more than {most} of added tokens"));
            }
            match token.normalized {
                _ if text.is_empty() => {}
                false => written.push(&text, Some(*id), None)?,
                true => normalized.push(&text, Some(*id), None)?,
            }
        }
        self.written = Vocabulary::new(written);
        self.normalized = Vocabulary::new(normalized);
        Ok(())
    }

    /// `text`, cut at the tokens that are looked for as they are written.
    pub(super) fn split_written(
        &self,
        text: &str,
        effort: &Effort,
    ) -> Result<Vec<TextPiece>, String> {
        self.split(text, &self.written, effort)
    }

    /// `text`, which is normalized, cut at the tokens that are looked for in such texts.
    pub(super) fn split_normalized(
        &self,
        text: &str,
        effort: &Effort,
    ) -> Result<Vec<TextPiece>, String> {
        self.split(text, &self.normalized, effort)
    }

    fn split(
        &self,
        text: &str,
        tokens: &Vocabulary,
        effort: &Effort,
    ) -> Result<Vec<TextPiece>, String> {
        let mut parts = Vec::new();
        if tokens.listed() == 0 {
            parts.push((None, 0..text.len()));
            return Ok(parts);
        }
        // What is cut off already, and the white space that was looked at last.
        let mut done = 0;
        let mut blank = 0..0;
        let mut next = 0;
        while let Some(c) = text[next..].chars().next() {
            let Some((len, id)) = tokens.longest("", &text[next..], effort)? else {
                next += c.len_utf8();
                continue;
            };
            let (mut start, mut end) = (next, next + len);
            next = end;
            let Some(token) = self.tokens.get(&id) else {
                continue;
            };
            if token.single_word && !self.stands_alone(text, &(start..end)) {
                continue;
            }
            if token.lstrip {
                // No further than what is cut off already.
                let before = text.get(done..start).unwrap_or("");
                start = (done + before.trim_end().len()).min(start.max(done));
            }
            if token.rstrip {
                if !(blank.start <= end && end <= blank.end) {
                    blank = end..text.len() - text[end..].trim_start().len();
                }
                end = blank.end;
            }
            if done < start {
                parts.push((None, done..start));
            }
            parts.push((Some(id), start..end));
            done = end;
        }
        if done < text.len() {
            parts.push((None, done..text.len()));
        }
        Ok(parts)
    }

    /// Whether no part of a word is beside `range`.
    fn stands_alone(&self, text: &str, range: &Range<usize>) -> bool {
        let is_word =
            |c: Option<char>| c.is_some_and(|c| self.word.is_in(c.encode_utf8(&mut [0; 4])));
        !is_word(text[..range.start].chars().next_back())
            && !is_word(text[range.end..].chars().next())
    }
}

/// `content` as `normalizer` makes it.
fn normalize(content: &str, normalizer: &Normalizer) -> Result<String, String> {
    let len = content.len();
    let mut text = NormalizedString::from(content);
    normalizer.apply(&mut text, grown(len), &Effort::new(len))?;
    Ok(text.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(tokens: Vec<AddedToken>) -> AddedVocabulary {
        let model = Vocabulary::new(Entries::of_json(r#"{"a":0,"<s>":7}"#).unwrap());
        let normalizer = Normalizer::of_json(&json!({"type": "Lowercase"})).unwrap();
        let mut added = AddedVocabulary::new().unwrap();
        added.add(tokens, &model, 2, &normalizer).unwrap();
        added
    }

    fn split(added: &AddedVocabulary, text: &str) -> Vec<String> {
        let parts = added.split_written(text, &Effort::new(text.len())).unwrap();
        let parts = parts.into_iter().map(|(id, range)| match id {
            Some(id) => format!("{id}:{}", &text[range]),
            None => text[range].to_owned(),
        });
        parts.collect()
    }

    #[test]
    fn ids_are_the_models_or_come_after_it() {
        let token = |content: &str| AddedToken::from(content, true);
        let added = of(vec![
            token("<s>"),
            token("<x>"),
            token("<y>"),
            token("<x>"),
            token(""),
        ]);
        let ids = ["<s>", "<x>", "<y>", ""].map(|content| added.id(content));
        assert_eq!(ids, [Some(7), Some(2), Some(3), None]);
        assert_eq!(
            split(&added, "a<x>é<s><y>"),
            ["a", "2:<x>", "é", "7:<s>", "3:<y>"]
        );
        assert_eq!(split(&added, ""), [""; 0]);
    }

    #[test]
    fn tokens_take_white_space_and_stand_alone_as_they_say() {
        let token = |content: &str| AddedToken::from(content, true);
        let added = of(vec![
            token("<l>").lstrip(true),
            token("<r>").rstrip(true),
            token("w").single_word(true),
            token("<l><r>"),
        ]);
        assert_eq!(split(&added, "a  <l> b"), ["a", "2:  <l>", " b"]);
        assert_eq!(split(&added, "a <r>  b"), ["a ", "3:<r>  ", "b"]);
        assert_eq!(split(&added, "<r> <l>"), ["3:<r> ", "2:<l>"]);
        assert_eq!(split(&added, "w aw w! wé"), ["4:w", " aw ", "4:w", "! wé"]);
        assert_eq!(split(&added, "<l><r>"), ["5:<l><r>"]);
    }

    #[test]
    fn normalized_tokens_are_found_in_normalized_text() {
        let added = of(vec![AddedToken::from("HI", false)]);
        let parts = added.split_normalized("oh hi", &Effort::new(5)).unwrap();
        assert_eq!(parts, [(None, 0..3), (Some(2), 3..5)]);
    }

    #[test]
    fn a_hundred_thousand_tokens_are_added_and_found_in_time() {
        let start = std::time::Instant::now();
        let added = of((0..100_000)
            .map(|n| AddedToken::from(format!("<{n}>"), n % 2 == 0))
            .collect());
        assert_eq!(split(&added, &"<99998> x".repeat(10_000)).len(), 20_000);
        // White space that each of many tokens strips.
        let added = of(vec![AddedToken::from(" ", true).rstrip(true).lstrip(true)]);
        assert_eq!(split(&added, &" ".repeat(200_000)).len(), 200_000);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
