//! A vocabulary in little more memory than its text: pieces in one string, found by narrowing a sorted list.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::limits::{Effort, MAX_PIECE_BYTES, MAX_PIECES};
use crate::error::shorten;
use crate::quote;

/// Pieces in the order of a file.
#[derive(Debug, Default)]
pub(super) struct Entries {
    text: String,
    /// Where each piece ends in `text`.
    ends: Vec<u32>,
    /// The pieces' ids; empty where an id is a piece's place.
    ids: Vec<u32>,
    /// The pieces' scores; empty where there are none.
    scores: Vec<f64>,
}

impl Entries {
    /// With room for `pieces` pieces, `bytes` bytes long together.
    pub(super) fn with_capacity(pieces: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ends: Vec::with_capacity(pieces),
            ..Self::default()
        }
    }

    /// The pieces in `json`: an object of pieces and ids, or a list, in the order of ids, of pieces or of pieces with scores.
    pub(super) fn of_json(json: &str) -> Result<Self, String> {
        let mut entries = Self::default();
        let mut json = serde_json::Deserializer::from_str(json);
        (&mut entries)
            .deserialize(&mut json)
            .map_err(|error| shorten(&error.to_string()))?;
        Ok(entries)
    }

    /// The lines of `text`, without the white space at their ends.
    pub(super) fn of_lines(text: &str) -> Result<Self, String> {
        let mut entries = Self::default();
        for line in text.lines() {
            entries.push(line.trim_end(), None, None)?;
        }
        Ok(entries)
    }

    /// Adds a piece. Either all have an id or none, and either all have a score or none.
    pub(super) fn push(
        &mut self,
        piece: &str,
        id: Option<u32>,
        score: Option<f64>,
    ) -> Result<(), String> {
        if self.ends.len() == MAX_PIECES {
            return Err(format!("more than {MAX_PIECES} pieces"));
        }
        if piece.len() > MAX_PIECE_BYTES {
            return Err(format!(
                "a piece of more than {}: `{}`",
                quote::bytes(MAX_PIECE_BYTES as u64),
                shorten(piece)
            ));
        }
        let end = u32::try_from(self.text.len() + piece.len())
            .map_err(|_| "more than 4 GiB of pieces".to_string())?;
        self.text.push_str(piece);
        self.ends.push(end);
        self.ids.extend(id);
        self.scores.extend(score);
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn piece(&self, entry: u32) -> &str {
        let entry = entry as usize;
        let start = match entry {
            0 => 0,
            _ => self.ends[entry - 1] as usize,
        };
        &self.text[start..self.ends[entry] as usize]
    }

    /// All pieces with their scores, NaN where a piece has none.
    pub(super) fn scored(&self) -> impl Iterator<Item = (&str, f64)> {
        (0..self.len() as u32).map(|entry| {
            let score = self.scores.get(entry as usize).copied();
            (self.piece(entry), score.unwrap_or(f64::NAN))
        })
    }
}

impl<'de> DeserializeSeed<'de> for &mut Entries {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Entries {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of pieces and ids, or a list of pieces")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((piece, id)) = map.next_entry::<String, u32>()? {
            self.push(&piece, Some(id), None)
                .map_err(A::Error::custom)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(Item(piece, score)) = seq.next_element()? {
            self.push(&piece, None, Some(score))
                .map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// One item of a list: a piece, or a pair of piece and score.
struct Item(String, f64);

impl<'de> serde::Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a piece, or a list of a piece and its score")
            }

            fn visit_str<E>(self, piece: &str) -> Result<Item, E> {
                Ok(Item(piece.to_owned(), f64::NAN))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
                let missing = || A::Error::custom("a piece or its score is missing");
                let piece = seq.next_element()?.ok_or_else(missing)?;
                let score = seq.next_element()?.ok_or_else(missing)?;
                Ok(Item(piece, score))
            }
        }
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// Pieces that can be looked up by text and by id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    entries: Entries,
    /// The entries by their text; of those with one text only the last.
    sorted: Vec<u32>,
    /// The entries by their id, where an id is not an entry's place.
    by_id: Vec<u32>,
}

impl Vocabulary {
    /// Of `entries`. The last of several pieces of one text is the one that counts.
    pub(super) fn new(entries: Entries) -> Self {
        let mut sorted: Vec<u32> = (0..entries.len() as u32).collect();
        // The last of equal texts comes first, and stays.
        sorted.sort_unstable_by(|a, b| entries.piece(*a).cmp(entries.piece(*b)).then(b.cmp(a)));
        sorted.dedup_by(|b, a| entries.piece(*a) == entries.piece(*b));
        let mut by_id = match entries.ids.is_empty() {
            true => Vec::new(),
            false => sorted.clone(),
        };
        by_id.sort_unstable_by_key(|entry| entries.ids[*entry as usize]);
        Self {
            entries,
            sorted,
            by_id,
        }
    }

    /// How many texts there are.
    pub(super) fn distinct(&self) -> usize {
        self.sorted.len()
    }

    /// How many pieces the file lists.
    pub(super) fn listed(&self) -> usize {
        self.entries.len()
    }

    fn id_of(&self, entry: u32) -> u32 {
        let given = self.entries.ids.get(entry as usize);
        given.copied().unwrap_or(entry)
    }

    /// The score of the piece `id`, where ids are places.
    pub(super) fn score(&self, id: u32) -> f64 {
        let score = self.entries.scores.get(id as usize);
        score.copied().unwrap_or(f64::NAN)
    }

    /// All scores.
    pub(super) fn scores(&self) -> &[f64] {
        &self.entries.scores
    }

    /// The id of the piece `text`.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let place = self
            .sorted
            .binary_search_by(|entry| self.entries.piece(*entry).cmp(text))
            .ok()?;
        Some(self.id_of(self.sorted[place]))
    }

    /// The piece `id`.
    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        let entry = if self.entries.ids.is_empty() {
            ((id as usize) < self.entries.len()).then_some(id)?
        } else {
            let place = self
                .by_id
                .binary_search_by_key(&id, |entry| self.id_of(*entry))
                .ok()?;
            self.by_id[place]
        };
        Some(self.entries.piece(entry))
    }

    /// One more than the highest id.
    pub(super) fn id_bound(&self) -> usize {
        match self.by_id.last() {
            Some(entry) => self.id_of(*entry) as usize + 1,
            None => self.entries.len(),
        }
    }

    /// Calls `found` with the length and the id of every piece that is a beginning of `prefix` and `text`, one after the
    /// other, and is longer than `prefix`; shorter ones first.
    pub(super) fn beginnings(
        &self,
        prefix: &str,
        text: &str,
        effort: &Effort,
        mut found: impl FnMut(usize, u32),
    ) -> Result<(), String> {
        let mut range = self.sorted.as_slice();
        if let Some((first, rest)) = range.split_first()
            && self.entries.piece(*first).is_empty()
        {
            range = rest;
        }
        for (depth, byte) in prefix.bytes().chain(text.bytes()).enumerate() {
            effort.compare()?;
            let at = |entry: &u32| self.entries.piece(*entry).as_bytes()[depth];
            let (Some(first), Some(last)) = (range.first(), range.last()) else {
                break;
            };
            // Where many pieces begin alike, there is nothing to search.
            if (at(first), at(last)) != (byte, byte) {
                let start = range.partition_point(|entry| at(entry) < byte);
                let rest = &range[start..];
                range = &rest[..rest.partition_point(|entry| at(entry) == byte)];
            }
            // A piece that ends here comes before those that go on.
            if let Some((first, rest)) = range.split_first()
                && self.entries.piece(*first).len() == depth + 1
            {
                range = rest;
                if depth >= prefix.len() {
                    found(depth + 1 - prefix.len(), self.id_of(*first));
                }
            }
        }
        Ok(())
    }

    /// The longest of [`Vocabulary::beginnings`].
    pub(super) fn longest(
        &self,
        prefix: &str,
        text: &str,
        effort: &Effort,
    ) -> Result<Option<(usize, u32)>, String> {
        let mut longest = None;
        self.beginnings(prefix, text, effort, |len, id| longest = Some((len, id)))?;
        Ok(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vocabulary {
        Vocabulary::new(Entries::of_json(json).unwrap())
    }

    #[test]
    fn pieces_are_found_by_text_and_id() {
        let ids = of(r#"{"b": 7, "": 3, "ab": 1, "a": 9, "b": 8, "é": 2}"#);
        let found = ["b", "", "ab", "a", "é", "abc"].map(|text| ids.id(text));
        assert_eq!(found, [Some(8), Some(3), Some(1), Some(9), Some(2), None]);
        assert_eq!((ids.piece(8), ids.piece(7)), (Some("b"), None));
        assert_eq!((ids.distinct(), ids.id_bound()), (5, 10));
        let list = of(r#"[["a", -1.5], ["b", 0], ["a", 2]]"#);
        assert_eq!(
            (list.id("a"), list.id("b"), list.piece(0)),
            (Some(2), Some(1), Some("a"))
        );
        assert_eq!((list.scores(), list.id_bound()), (&[-1.5, 0.0, 2.0][..], 3));
        assert_eq!(of(r#"["x", "y"]"#).id("y"), Some(1));
    }

    #[test]
    fn beginnings_come_shortest_first() {
        let vocabulary =
            of(r###"{"a":0, "ab":1, "abcd":2, "b":3, "##a":4, "##ab":5, "##":6, "é":7}"###);
        let all = |prefix: &str, text: &str| {
            let mut all = Vec::new();
            vocabulary
                .beginnings(prefix, text, &Effort::new(100), |len, id| {
                    all.push((len, id))
                })
                .unwrap();
            all
        };
        assert_eq!(all("", "abcdé"), [(1, 0), (2, 1), (4, 2)]);
        assert_eq!(all("", "abc"), [(1, 0), (2, 1)]);
        assert_eq!(all("##", "abcd"), [(1, 4), (2, 5)]);
        assert_eq!(all("", "éa"), [(2, 7)]);
        assert_eq!(all("", ""), []);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert!(Entries::of_json("3").is_err() && Entries::of_json(r#"{"a":-1}"#).is_err());
        assert!(Entries::of_json(r#"[["a"]]"#).is_err() && Entries::of_json("[[1, 2]]").is_err());
        let long = format!(r#"["{}"]"#, "x".repeat(1025));
        assert!(
            Entries::of_json(&long)
                .unwrap_err()
                .contains("a piece of more than 1.0 KiB")
        );
        let many = format!("[{}\"\"]", "\"\",".repeat(1_000_000));
        assert!(
            Entries::of_json(&many)
                .unwrap_err()
                .contains("more than 1000000 pieces")
        );
    }
}
