//! A unigram model: the pieces of a word whose scores are highest together (sentencepiece `src/unigram_model.cc`,
//! `EncodeOptimized`; tokenizers `models/unigram/model.rs`, whose trie of hash maps costs 2 KB a piece).

use super::limits::Effort;
use super::vocabulary::Vocabulary;

/// What an unknown character scores below the lowest piece.
const UNKNOWN_PENALTY: f64 = 10.0;

#[derive(Debug)]
pub(super) struct Unigram {
    pub(super) vocabulary: Vocabulary,
    /// The id of what is unknown.
    unk_id: Option<u32>,
    unk_score: f64,
    /// Whether what is unknown becomes pieces such as `<0x0A>`, where all of its bytes have one.
    byte_fallback: bool,
}

/// The best way to a place in a word.
#[derive(Clone, Copy, Debug)]
struct Best {
    score: f64,
    /// Where its last piece starts; none so far.
    start: Option<u32>,
    id: u32,
}

impl Best {
    /// Whether a way with this score is better.
    fn is_beaten_by(&self, score: f64) -> bool {
        self.start.is_none() || score > self.score
    }
}

impl Unigram {
    /// Of pieces with scores.
    pub(super) fn new(
        vocabulary: Vocabulary,
        unk_id: Option<usize>,
        byte_fallback: bool,
    ) -> Result<Self, String> {
        if unk_id.is_some_and(|id| id >= vocabulary.listed()) {
            return Err("`unk_id` is beyond the vocabulary".into());
        }
        let lowest = vocabulary.scores().iter().copied();
        Ok(Self {
            unk_score: lowest.fold(f64::INFINITY, |a, b| if b < a { b } else { a })
                - UNKNOWN_PENALTY,
            unk_id: unk_id.map(|id| id as u32),
            vocabulary,
            byte_fallback,
        })
    }

    /// Adds the ids of `word` to `ids`.
    pub(super) fn encode(
        &self,
        word: &str,
        ids: &mut Vec<u32>,
        effort: &Effort,
    ) -> Result<(), String> {
        let best = self.best(word, effort)?;
        let mut pieces = Vec::new();
        let mut end = word.len();
        while end > 0 {
            let start = best[end].start.map_or(0, |start| start as usize);
            pieces.push((start..end, best[end].id));
            end = start;
        }
        let mut pieces = pieces.into_iter().rev().peekable();
        while let Some((mut range, id)) = pieces.next() {
            let unknown = |id: u32| Some(id) == self.unk_id;
            if !unknown(id) {
                ids.push(id);
                continue;
            }
            // Unknown pieces beside each other are one.
            while let Some((next, _)) = pieces.next_if(|(_, id)| unknown(*id)) {
                range.end = next.end;
            }
            self.encode_unknown(&word[range], ids)?;
        }
        Ok(())
    }

    fn encode_unknown(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        let bytes = || -> Option<Vec<u32>> {
            text.bytes()
                .map(|byte| self.vocabulary.id(&format!("<0x{byte:02X}>")))
                .collect()
        };
        if let Some(id) = self.vocabulary.id(text) {
            ids.push(id);
        } else if let Some(bytes) = self.byte_fallback.then(bytes).flatten() {
            ids.extend(bytes);
        } else {
            ids.push(self.unk_id.ok_or(NO_UNKNOWN)?);
        }
        Ok(())
    }

    /// The best way to each place of `word`.
    fn best(&self, word: &str, effort: &Effort) -> Result<Vec<Best>, String> {
        let none = Best {
            score: 0.0,
            start: None,
            id: 0,
        };
        let mut best = vec![none; word.len() + 1];
        for (start, c) in word.char_indices() {
            let here = best[start].score;
            let mut single = false;
            let mut offer = |len: usize, score: f64, id: u32| {
                let there = &mut best[start + len];
                let score = score + here;
                if there.is_beaten_by(score) {
                    *there = Best {
                        score,
                        start: Some(start as u32),
                        id,
                    };
                }
            };
            self.vocabulary
                .beginnings("", &word[start..], effort, |len, id| {
                    single |= len == c.len_utf8();
                    offer(len, self.vocabulary.score(id), id);
                })?;
            let score = self.unk_score + here;
            let there = &mut best[start + c.len_utf8()];
            // Without an id for it what is unknown is an error only where nothing else is better.
            if !single && there.is_beaten_by(score) {
                *there = Best {
                    score,
                    start: Some(start as u32),
                    id: self.unk_id.ok_or(NO_UNKNOWN)?,
                };
            }
        }
        Ok(best)
    }
}

const NO_UNKNOWN: &str = "an unknown character, and the model has no `unk_id`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizers::vocabulary::Entries;

    fn model(json: &str, byte_fallback: bool) -> Unigram {
        let vocabulary = Vocabulary::new(Entries::of_json(json).unwrap());
        Unigram::new(vocabulary, Some(0), byte_fallback).unwrap()
    }

    fn ids(model: &Unigram, word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        model
            .encode(word, &mut ids, &Effort::new(word.len()))
            .unwrap();
        ids
    }

    #[test]
    fn the_best_pieces_are_taken_and_unknown_ones_are_fused() {
        // The example of the tokenizers library's documentation.
        let model = model(
            r#"[["<unk>",0],["a",0],["b",0],["c",0],["d",0],["cd",1],["ab",2],["abc",5],["abcd",10],["<0x78>",0]]"#,
            false,
        );
        assert_eq!(ids(&model, "abcdacdxx"), [8, 1, 5, 0]);
        assert_eq!(ids(&model, "xaéb"), [0, 1, 0, 2]);
        assert!(ids(&model, "").is_empty());
    }

    #[test]
    fn what_is_unknown_may_be_part_of_a_piece() {
        let vocabulary = Vocabulary::new(Entries::of_json(r#"[["b",0],["ba",0]]"#).unwrap());
        let model = Unigram::new(vocabulary, None, false).unwrap();
        assert_eq!(ids(&model, "bab"), [1, 0]);
        let alone = model.encode("a", &mut Vec::new(), &Effort::new(1));
        assert!(alone.unwrap_err().contains("unk_id"));
    }

    #[test]
    fn unknown_bytes_have_pieces_where_all_have() {
        let model = model(r#"[["<unk>",0],["a",0],["<0x78>",0]]"#, true);
        assert_eq!(ids(&model, "axx"), [1, 2, 2]);
        assert_eq!(ids(&model, "axé"), [1, 0]);
    }

    #[test]
    fn pieces_that_begin_alike_do_not_cost_without_end() {
        let pieces: Vec<String> = (1..1000)
            .map(|n| format!(r#"["{}",-1]"#, "a".repeat(n)))
            .collect();
        let model = model(&format!(r#"[["<unk>",0],{}]"#, pieces.join(",")), false);
        let word = "a".repeat(1 << 20);
        let mut found = Vec::new();
        let error = model.encode(&word, &mut found, &Effort::new(word.len()));
        assert!(error.unwrap_err().contains("takes too long"));
        assert_eq!(ids(&model, &word[..1998]), [999, 999]);
    }
}
