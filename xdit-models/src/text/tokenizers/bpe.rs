//! Byte-pair encoding: the characters of a word, merged pair by pair in the order of the merges (Sennrich et al. 2016;
//! tokenizers `models/bpe/{model,word}.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::limits::MAX_PIECES;
use super::vocabulary::Vocabulary;
use crate::error::shorten;

/// The options of a model besides vocabulary and merges.
#[derive(Clone, Debug, Default)]
pub(super) struct BpeOptions {
    pub(super) unk_token: Option<String>,
    /// The prefix of all pieces except the first of a word.
    pub(super) continuing_subword_prefix: Option<String>,
    /// The suffix of the last piece of a word.
    pub(super) end_of_word_suffix: Option<String>,
    /// Whether adjacent unknown characters become one token.
    pub(super) fuse_unk: bool,
    /// Whether unknown text becomes pieces such as `<0x0A>`, if all of its bytes have one.
    pub(super) byte_fallback: bool,
    /// Whether a word that is a piece is not split.
    pub(super) ignore_merges: bool,
}

#[derive(Debug)]
pub(super) struct Bpe {
    pub(super) vocabulary: Vocabulary,
    /// By the pair.
    merges: Vec<Merge>,
    options: BpeOptions,
}

/// The result of a pair of pieces.
#[derive(Clone, Copy, Debug)]
struct Merge {
    pair: (u32, u32),
    /// Lower ranks are merged first.
    rank: u32,
    id: u32,
}

/// The merges of a model, while they are being read.
#[derive(Debug)]
pub(super) struct Merges<'a> {
    vocabulary: &'a Vocabulary,
    prefix: &'a str,
    list: Vec<Merge>,
    joined: String,
}

impl<'a> Merges<'a> {
    pub(super) fn new(vocabulary: &'a Vocabulary, options: &'a BpeOptions) -> Self {
        Self {
            vocabulary,
            prefix: options.continuing_subword_prefix.as_deref().unwrap_or(""),
            list: Vec::new(),
            joined: String::new(),
        }
    }

    /// Reserves memory for the merges in `bytes` bytes, which have at least four bytes each.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.list.reserve_exact((bytes / 4).min(MAX_PIECES));
    }

    /// Adds the next merge, of `left` and `right`.
    pub(super) fn push(&mut self, left: &str, right: &str) -> Result<(), String> {
        if self.list.len() == MAX_PIECES {
            return Err(format!("more than {MAX_PIECES} merges"));
        }
        let id = |piece: &str| {
            let missing = || {
                format!(
                    "the merge token `{}` is not in the vocabulary",
                    shorten(piece)
                )
            };
            self.vocabulary.id(piece).ok_or_else(missing)
        };
        let pair = (id(left)?, id(right)?);
        let rest = right
            .get(self.prefix.len()..)
            .ok_or_else(|| format!("the merge token `{}` lacks the prefix", shorten(right)))?;
        self.joined.clear();
        self.joined.extend([left, rest]);
        self.list.push(Merge {
            pair,
            rank: self.list.len() as u32,
            id: id(&self.joined)?,
        });
        Ok(())
    }

    /// Adds the merge in `text`, two pieces with a space between. Ignores the line of the version.
    pub(super) fn push_text(&mut self, text: &str) -> Result<(), String> {
        if text.starts_with("#version") {
            return Ok(());
        }
        let pair = text
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '));
        let (left, right) =
            pair.ok_or_else(|| format!("a merge is not two tokens: `{}`", shorten(text)))?;
        self.push(left, right)
    }

    /// Adds all merges in the list `json`.
    pub(super) fn push_json(&mut self, json: &str) -> Result<(), String> {
        self.reserve(json.len());
        let mut json = serde_json::Deserializer::from_str(json);
        self.deserialize(&mut json)
            .map_err(|error| error.to_string())
    }

    /// Returns the merges by their pair. The last one wins if several have the same pair.
    fn sorted(self) -> Vec<Merge> {
        let mut list = self.list;
        list.sort_unstable_by_key(|merge| (merge.pair, Reverse(merge.rank)));
        list.dedup_by_key(|merge| merge.pair);
        list.shrink_to_fit();
        list
    }
}

impl<'de> DeserializeSeed<'de> for &mut Merges<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Merges<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pairs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(written) = seq.next_element()? {
            match written {
                WrittenMerge::Text(text) => self.push_text(&text),
                WrittenMerge::Pair(left, right) => self.push(&left, &right),
            }
            .map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// A merge in the form of files.
enum WrittenMerge {
    Text(String),
    Pair(String, String),
}

impl<'de> Deserialize<'de> for WrittenMerge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WrittenMergeVisitor;
        impl<'de> Visitor<'de> for WrittenMergeVisitor {
            type Value = WrittenMerge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of tokens")
            }

            fn visit_str<E>(self, text: &str) -> Result<WrittenMerge, E> {
                Ok(WrittenMerge::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WrittenMerge, A::Error> {
                let missing = || A::Error::custom("a merge without two tokens");
                let left = seq.next_element()?.ok_or_else(missing)?;
                let right = seq.next_element()?.ok_or_else(missing)?;
                Ok(WrittenMerge::Pair(left, right))
            }
        }
        deserializer.deserialize_any(WrittenMergeVisitor)
    }
}

/// A piece of a word, between its neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    prev: Option<u32>,
    next: Option<u32>,
    /// Whether it was merged into the previous piece.
    gone: bool,
}

impl Bpe {
    /// Creates the model. `read` adds the merges.
    ///
    /// # Errors
    /// What `read` gives.
    pub(super) fn new<E>(
        vocabulary: Vocabulary,
        options: BpeOptions,
        read: impl FnOnce(&mut Merges<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut merges = Merges::new(&vocabulary, &options);
        read(&mut merges)?;
        let merges = merges.sorted();
        Ok(Self {
            vocabulary,
            merges,
            options,
        })
    }

    /// Adds the ids of `word` to `ids`.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        if word.is_empty() {
            return Ok(());
        }
        if self.options.ignore_merges
            && let Some(id) = self.vocabulary.id(word)
        {
            ids.push(id);
            return Ok(());
        }
        let mut symbols = self.symbols(word)?;
        self.merge(&mut symbols);
        ids.extend(symbols.iter().filter(|s| !s.gone).map(|s| s.id));
        Ok(())
    }

    /// Returns the characters of `word`.
    fn symbols(&self, word: &str) -> Result<Vec<Symbol>, String> {
        let mut symbols: Vec<Symbol> = Vec::new();
        let mut add = |id: u32| {
            let place = symbols.len() as u32;
            if let Some(last) = symbols.last_mut() {
                last.next = Some(place);
            }
            symbols.push(Symbol {
                id,
                prev: place.checked_sub(1),
                next: None,
                gone: false,
            });
        };
        let options = &self.options;
        let mut unknown: Option<u32> = None;
        let mut written = String::new();
        let mut chars = word.char_indices().peekable();
        while let Some((start, c)) = chars.next() {
            written.clear();
            if start > 0 {
                written.extend(options.continuing_subword_prefix.as_deref());
            }
            written.push(c);
            if chars.peek().is_none() {
                written.extend(options.end_of_word_suffix.as_deref());
            }
            if let Some(id) = self.vocabulary.id(&written) {
                unknown.take().into_iter().for_each(&mut add);
                add(id);
                continue;
            }
            if options.byte_fallback
                && let Some(bytes) = self.bytes(&written)
            {
                bytes.into_iter().for_each(&mut add);
                continue;
            }
            if let Some(token) = &options.unk_token {
                let id = self
                    .vocabulary
                    .id(token)
                    .ok_or_else(|| format!("unk_token `{}` has no id", shorten(token)))?;
                if !options.fuse_unk {
                    unknown.take().into_iter().for_each(&mut add);
                }
                unknown = Some(id);
            }
        }
        unknown.into_iter().for_each(add);
        Ok(symbols)
    }

    fn bytes(&self, text: &str) -> Option<Vec<u32>> {
        text.bytes()
            .map(|byte| self.vocabulary.id(&format!("<0x{byte:02X}>")))
            .collect()
    }

    fn merge_of(&self, left: u32, right: u32) -> Option<Merge> {
        let place = self
            .merges
            .binary_search_by_key(&(left, right), |merge| merge.pair);
        Some(self.merges[place.ok()?])
    }

    fn merge(&self, symbols: &mut [Symbol]) {
        let pairs = symbols.windows(2).enumerate().filter_map(|(place, pair)| {
            let merge = self.merge_of(pair[0].id, pair[1].id)?;
            Some(Reverse((merge.rank, place as u32, merge.id)))
        });
        let mut queue: BinaryHeap<_> = pairs.collect();
        while let Some(Reverse((_, place, id))) = queue.pop() {
            let left = symbols[place as usize];
            let Some(next) = left.next.filter(|_| !left.gone) else {
                continue;
            };
            let right = symbols[next as usize];
            // The pair may have changed since it was added to the queue.
            if self
                .merge_of(left.id, right.id)
                .is_none_or(|merge| merge.id != id)
            {
                continue;
            }
            symbols[next as usize].gone = true;
            let merged = &mut symbols[place as usize];
            (merged.id, merged.next) = (id, right.next);
            let merged = *merged;
            if let Some(after) = right.next {
                symbols[after as usize].prev = Some(place);
            }
            let mut offer = |left: u32, right: u32| {
                let (a, b) = (symbols[left as usize].id, symbols[right as usize].id);
                if let Some(merge) = self.merge_of(a, b) {
                    queue.push(Reverse((merge.rank, left, merge.id)));
                }
            };
            if let Some(before) = merged.prev {
                offer(before, place);
            }
            if let Some(after) = merged.next {
                offer(place, after);
            }
        }
    }
}

#[cfg(test)]
mod tests;
