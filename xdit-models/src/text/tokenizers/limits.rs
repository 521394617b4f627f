//! The limits of a tokenizer: sizes of its files, growth of text, and time for a prompt.
//!
//! Real files are far below these limits: mT5 has 250,112 pieces in 16 MB, the longest piece of any known vocabulary has 256
//! bytes, and compatibility forms of Unicode make a text at most eleven times as long.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The longest tokenizer file, in bytes. mT5's has 16 MB.
pub(super) const MAX_TOKENIZER_BYTES: usize = 64 << 20;
/// The largest number of pieces of a vocabulary, and of merges. mT5 has 250,112.
pub(super) const MAX_PIECES: usize = 1_000_000;
/// The longest piece of a vocabulary, and the longest added token, in bytes.
pub(super) const MAX_PIECE_BYTES: usize = 1024;
/// The largest number of tokens besides the vocabulary.
pub(super) const MAX_ADDED_TOKENS: usize = 1 << 17;
/// The longest part of a `tokenizer.json` that is neither vocabulary, merges nor added tokens, in bytes.
pub(super) const MAX_PART_BYTES: usize = 2 << 20;
/// The deepest nesting of steps (`Sequence`).
pub(super) const MAX_DEPTH: usize = 16;
/// The largest number of steps of a normalizer, a pre-tokenizer, a post-processor or a decoder.
pub(super) const MAX_STEPS: usize = 32;
/// The largest number of special tokens that a template adds around a prompt.
pub(super) const MAX_SPECIAL: usize = 1024;
/// The longest prompt, in bytes.
pub(super) const MAX_PROMPT_BYTES: usize = 1 << 20;
/// The longest text that a prompt may become, in bytes.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// How many times as long a text may become, besides [`ROOM`].
const GROWTH: usize = 16;
/// The growth that is allowed for a text of any length, in bytes.
const ROOM: usize = 1024;
/// How long the regular expressions of a tokenizer may search one prompt.
const SEARCH_TIME: Duration = Duration::from_secs(20);
/// The longest time that counts for one search. A longer time means that the process was stopped meanwhile.
const LONGEST_SEARCH: Duration = Duration::from_secs(1);

/// Returns how long a text of `len` bytes may become, in bytes.
pub(super) fn grown(len: usize) -> usize {
    (len * GROWTH + ROOM).min(MAX_TEXT_BYTES.max(len))
}

/// The rest of the work that one prompt may take.
#[derive(Debug)]
pub(super) struct Effort {
    /// The number of bytes of pieces that may still be compared.
    comparisons: Cell<u64>,
    searching: Cell<Duration>,
}

impl Effort {
    /// For a text of `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        Self {
            comparisons: Cell::new(1_000_000 + 16 * grown(len) as u64),
            searching: Cell::new(SEARCH_TIME),
        }
    }

    /// Counts one comparison.
    pub(super) fn compare(&self) -> Result<(), String> {
        let left = self.comparisons.get().checked_sub(1);
        self.comparisons
            .set(left.ok_or("a prompt that takes too long: too many pieces begin alike")?);
        Ok(())
    }

    /// Counts the time since `start`, and sets `start` to now.
    pub(super) fn searched(&self, start: &mut Instant) -> Result<(), String> {
        let now = Instant::now();
        let spent = now.duration_since(*start).min(LONGEST_SEARCH);
        *start = now;
        let left = self.searching.get().checked_sub(spent);
        self.searching
            .set(left.ok_or("a prompt that takes too long: a regular expression is too slow")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_grow_by_a_bounded_factor() {
        assert_eq!(grown(0), 1024);
        assert_eq!(grown(100), 2624);
        assert_eq!(grown(MAX_PROMPT_BYTES), 4 << 20);
        assert_eq!(grown(5 << 20), 5 << 20, "what is there already may stay");
    }

    #[test]
    fn effort_ends() {
        let effort = Effort::new(0);
        assert!((0..1_000_000 + 16 * 1024).all(|_| effort.compare().is_ok()));
        assert!(effort.compare().is_err());
        // Hours in which the process was stopped count as one second.
        let long_ago = || Instant::now().checked_sub(Duration::from_secs(3600));
        let Some(mut start) = long_ago() else { return };
        effort.searched(&mut start).unwrap();
        let slow = (0..25).filter_map(|_| Some(effort.searched(&mut long_ago()?)));
        assert_eq!(slow.filter(Result::is_ok).count(), 19);
    }
}
