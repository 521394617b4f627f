//! WordPiece: the longest pieces of a word from left to right; and whole words (tokenizers
//! `models/{wordpiece,wordlevel}/mod.rs`).

use super::limits::Effort;
use super::vocabulary::Vocabulary;
use crate::error::shorten;

#[derive(Debug)]
pub(super) struct WordPiece {
    pub(super) vocabulary: Vocabulary,
    pub(super) unk_token: String,
    /// Comes before all pieces but the first of a word.
    pub(super) prefix: String,
    /// A longer word is unknown.
    pub(super) longest_word: usize,
}

impl WordPiece {
    /// Adds the ids of `word` to `ids`.
    pub(super) fn encode(
        &self,
        word: &str,
        ids: &mut Vec<u32>,
        effort: &Effort,
    ) -> Result<(), String> {
        let before = ids.len();
        let mut start = 0;
        let short = word.chars().nth(self.longest_word).is_none();
        while short && start < word.len() {
            let prefix = if start > 0 { self.prefix.as_str() } else { "" };
            let longest = self.vocabulary.longest(prefix, &word[start..], effort)?;
            let Some((len, id)) = longest else { break };
            ids.push(id);
            start += len;
        }
        if start < word.len() {
            ids.truncate(before);
            ids.push(unknown(&self.vocabulary, &self.unk_token)?);
        }
        Ok(())
    }
}

/// Whole words.
#[derive(Debug)]
pub(super) struct WordLevel {
    pub(super) vocabulary: Vocabulary,
    pub(super) unk_token: String,
}

impl WordLevel {
    /// Adds the id of `word` to `ids`.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        ids.push(match self.vocabulary.id(word) {
            Some(id) => id,
            None => unknown(&self.vocabulary, &self.unk_token)?,
        });
        Ok(())
    }
}

fn unknown(vocabulary: &Vocabulary, token: &str) -> Result<u32, String> {
    vocabulary.id(token).ok_or_else(|| {
        format!(
            "an unknown word, and unk_token `{}` has no id",
            shorten(token)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizers::vocabulary::Entries;

    fn model(json: &str, prefix: &str, longest_word: usize) -> WordPiece {
        WordPiece {
            vocabulary: Vocabulary::new(Entries::of_json(json).unwrap()),
            unk_token: "[UNK]".into(),
            prefix: prefix.into(),
            longest_word,
        }
    }

    fn ids(model: &WordPiece, word: &str) -> Vec<u32> {
        let mut ids = vec![99];
        model
            .encode(word, &mut ids, &Effort::new(word.len()))
            .unwrap();
        ids.split_off(1)
    }

    #[test]
    fn the_longest_piece_is_taken_or_the_word_is_unknown() {
        let model = model(
            r###"{"[UNK]":0,"un":1,"##aff":2,"##able":3,"##a":4,"u":5}"###,
            "##",
            9,
        );
        assert_eq!(ids(&model, "unaffable"), [1, 2, 3]);
        assert_eq!(ids(&model, "una"), [1, 4]);
        assert_eq!(ids(&model, "unb"), [0]);
        assert_eq!(ids(&model, "unaffablea"), [0], "ten characters");
        assert!(ids(&model, "").is_empty());
    }

    #[test]
    fn a_word_of_60_kb_without_a_prefix_takes_a_moment() {
        let model = model(r#"{"[UNK]":0,"a":1,"ab":2}"#, "", usize::MAX);
        let start = std::time::Instant::now();
        assert_eq!(ids(&model, &"a".repeat(60_000)).len(), 60_000);
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    }

    #[test]
    fn words_are_looked_up_whole() {
        let model = WordLevel {
            vocabulary: Vocabulary::new(Entries::of_json(r#"{"a":4,"?":1}"#).unwrap()),
            unk_token: "?".into(),
        };
        let mut ids = Vec::new();
        model.encode("a", &mut ids).unwrap();
        model.encode("b", &mut ids).unwrap();
        assert_eq!(ids, [4, 1]);
    }
}
