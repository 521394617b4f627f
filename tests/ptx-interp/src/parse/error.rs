//! Why a PTX text cannot be loaded.

/// A PTX text that the interpreter does not read. It names the line and what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {reason}: `{text}`")]
pub struct ParseError {
    line: usize,
    text: String,
    reason: String,
}

impl ParseError {
    pub(crate) fn new(line: usize, text: &str, reason: impl Into<String>) -> Self {
        Self {
            line,
            text: text.trim().to_owned(),
            reason: reason.into(),
        }
    }

    /// The line of the text, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// What stands there.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the interpreter expected or does not know.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
