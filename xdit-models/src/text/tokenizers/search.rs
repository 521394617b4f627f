//! Regular expressions of model files, with limits on their size and their search time.

use std::cell::Cell;
use std::time::Instant;

use ::tokenizers::pattern::Pattern;
use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::limits::Effort;
use crate::error::shorten;
use crate::quote;

/// The longest expression, in bytes. The longest known one, o200k's, has 300.
const MAX_EXPRESSION_BYTES: usize = 1024;
/// The largest compiled size of a part of an expression, in bytes.
const MAX_COMPILED_BYTES: usize = 2 << 20;

/// The pieces of a text, in order, and whether each is a match.
pub(super) type Matches = Vec<((usize, usize), bool)>;

/// A search pattern.
#[derive(Debug)]
pub(super) struct Search {
    regex: Regex,
    shown: String,
}

impl Search {
    /// Creates a pattern from the regular expression `expression`.
    pub(super) fn regex(expression: &str) -> Result<Self, String> {
        let shown = shorten(expression);
        if expression.len() > MAX_EXPRESSION_BYTES {
            return Err(format!(
                "a regular expression of more than {}: `{shown}`",
                quote::bytes(MAX_EXPRESSION_BYTES as u64)
            ));
        }
        let regex = RegexBuilder::new(expression)
            .delegate_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| {
                let error = shorten(&error.to_string());
                format!("the regular expression `{shown}` cannot be used: {error}")
            })?;
        Ok(Self { regex, shown })
    }

    /// Creates a pattern from a `pattern` of a `tokenizer.json`: `{"String": …}` or `{"Regex": …}`.
    pub(super) fn of_json(pattern: &Value) -> Result<Self, String> {
        match (&pattern["String"], &pattern["Regex"]) {
            (Value::String(text), Value::Null) => Self::regex(&fancy_regex::escape(text)),
            (Value::Null, Value::String(expression)) => Self::regex(expression),
            _ => Err("a `pattern` that is neither a String nor a Regex".into()),
        }
    }

    /// Splits `text` at the start and end of each match.
    pub(super) fn matches(&self, text: &str, effort: &Effort) -> Result<Matches, String> {
        if text.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut matches = Vec::new();
        let mut end = 0;
        let mut start = Instant::now();
        for found in self.regex.find_iter(text) {
            let found = found.map_err(|error| self.slow(&error.to_string()))?;
            effort
                .searched(&mut start)
                .map_err(|error| self.slow(&error))?;
            if end != found.start() {
                matches.push(((end, found.start()), false));
            }
            matches.push(((found.start(), found.end()), true));
            end = found.end();
        }
        if end != text.len() {
            matches.push(((end, text.len()), false));
        }
        Ok(matches)
    }

    /// Returns whether there is a match in `text`, which is short.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.regex.is_match(text).unwrap_or(false)
    }

    fn slow(&self, error: &str) -> String {
        format!("the regular expression `{}`: {error}", self.shown)
    }
}

/// Matches that were already found, for a call of the tokenizers library.
pub(super) struct FoundMatches(Cell<Matches>);

impl FoundMatches {
    pub(super) fn new(matches: Matches) -> Self {
        Self(Cell::new(matches))
    }
}

impl Pattern for FoundMatches {
    fn find_matches(&self, _inside: &str) -> ::tokenizers::Result<Matches> {
        Ok(self.0.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_cut_at_its_matches() {
        let search = Search::of_json(&json!({"String": "a."})).unwrap();
        let effort = Effort::new(10);
        let found = search.matches("xa.ya", &effort).unwrap();
        assert_eq!(found, [((0, 1), false), ((1, 3), true), ((3, 5), false)]);
        let search = Search::of_json(&json!({"Regex": "a(?=.)"})).unwrap();
        let found = search.matches("xa.ya", &effort).unwrap();
        assert_eq!(found, [((0, 1), false), ((1, 2), true), ((2, 5), false)]);
        assert_eq!(search.matches("", &effort).unwrap(), [((0, 0), false)]);
    }

    #[test]
    fn expressions_without_end_are_refused() {
        for (pattern, part) in [
            (json!({"Regex": "a".repeat(1025)}), "of more than 1.0 KiB"),
            (json!({"Regex": r"(\w{1000}){1000}"}), "cannot be used"),
            (json!({"Regex": "("}), "cannot be used"),
            (
                json!({"Regex": "(".repeat(500) + &")".repeat(500)}),
                "cannot be used",
            ),
            (json!({}), "neither a String nor a Regex"),
            (json!("a"), "neither a String nor a Regex"),
        ] {
            let error = Search::of_json(&pattern).unwrap_err();
            assert!(error.contains(part) && error.len() < 300, "{error}");
        }
        let search = Search::regex(r"(?:a|a)*(?!a)b").unwrap();
        let error = search.matches(&"a".repeat(100_000), &Effort::new(10));
        assert!(
            error
                .unwrap_err()
                .contains("the regular expression `(?:a|a)*")
        );
    }
}
