//! What a check found, as a line for people and as JSON.

use serde_json::{Map, Value, json};
use xdit_models::quote;

use crate::report::table::{COLUMNS, GAP};

/// Whether a part of the machine is as a run needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CheckState {
    /// It can be used.
    Fine,
    /// It is not there, or cannot be used. Runs that do not need it work.
    Lacks,
    /// Settings of the environment contradict each other, or one has a value that no run accepts.
    Wrong,
}

/// What one check found.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The part of the machine, in one word.
    pub what: &'static str,
    pub state: CheckState,
    /// What is there, or why it is not.
    pub found: String,
    /// What to do; none where nothing is missing.
    pub cure: Option<String>,
    /// The same in numbers, for `--json`.
    pub data: Value,
}

/// The columns of the state and of the part, with the gaps after them.
const INDENT: usize = STATE + WHAT;
const STATE: usize = 7;
const WHAT: usize = 11;

impl CheckState {
    /// The word of this state.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Lacks => "lacks",
            Self::Wrong => "wrong",
        }
    }
}

impl Finding {
    /// A part that can be used.
    pub(crate) fn fine(what: &'static str, found: impl Into<String>, data: Value) -> Self {
        Self {
            what,
            state: CheckState::Fine,
            found: found.into(),
            cure: None,
            data,
        }
    }

    /// A part that is not there or cannot be used, and what to do.
    pub(crate) fn lacks(
        what: &'static str,
        found: impl Into<String>,
        cure: impl Into<String>,
        data: Value,
    ) -> Self {
        Self {
            state: CheckState::Lacks,
            cure: Some(cure.into()),
            ..Self::fine(what, found, data)
        }
    }

    /// A setting that no run accepts, and what to do.
    pub(crate) fn wrong(
        what: &'static str,
        found: impl Into<String>,
        cure: impl Into<String>,
        data: Value,
    ) -> Self {
        Self {
            state: CheckState::Wrong,
            ..Self::lacks(what, found, cure, data)
        }
    }

    /// Lines of at most 80 columns. The cure has lines of its own.
    fn lines(&self, with_cure: bool) -> Vec<String> {
        let width = COLUMNS - INDENT;
        let found = wrapped(&self.found, width);
        let cure = self.cure.iter().filter(|_| with_cure);
        let cure = cure.flat_map(|cure| wrapped(&format!("> {cure}"), width));
        let mut lines: Vec<String> = found.into_iter().chain(cure).collect();
        for (n, line) in lines.iter_mut().enumerate() {
            let (state, what) = match n {
                0 => (self.state.word(), self.what),
                _ => ("", ""),
            };
            *line = format!("{state:STATE$}{what:WHAT$}{line}");
        }
        lines
    }

    /// The finding as `--json` tells it.
    fn json(&self) -> Value {
        json!({
            "state": self.state.word(),
            "found": self.found,
            "cure": self.cure,
            "data": self.data,
        })
    }
}

/// All findings as one object, by part.
pub(crate) fn json_of(findings: &[Finding]) -> Value {
    let parts = findings.iter().map(|it| (it.what.to_owned(), it.json()));
    Value::Object(Map::from_iter(parts))
}

/// All findings in at most `most` lines, if that is possible: what to do about parts that are only missing is left out first.
pub(crate) fn lines_of(findings: &[Finding], most: usize) -> Vec<String> {
    let lines = |cures: bool| -> Vec<String> {
        let each = findings.iter();
        each.flat_map(|it| it.lines(cures || it.state == CheckState::Wrong))
            .collect()
    };
    let all = lines(true);
    match all.len() <= most {
        true => all,
        false => lines(false),
    }
}

/// A text in at most two lines of `width` columns, broken at spaces. What is left is cut.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let text = quote::escape(text);
    if text.chars().count() <= width {
        return vec![text];
    }
    let mut first = String::new();
    for word in text.split(' ') {
        let longer = first.chars().count() + usize::from(!first.is_empty()) + word.chars().count();
        if longer > width {
            break;
        }
        if !first.is_empty() {
            first.push(' ');
        }
        first += word;
    }
    let rest = text[first.len()..].trim_start();
    match first.is_empty() {
        // A word, such as a path, that is too long for a line.
        true => vec![quote::within(&text, width)],
        false => vec![
            first,
            format!("{:GAP$}{}", "", quote::within(rest, width - GAP)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(lines: &[String]) -> usize {
        let widths = lines.iter().map(|line| line.chars().count());
        widths.max().unwrap_or(0)
    }

    #[test]
    fn a_finding_is_a_line_and_its_cure_another() {
        let finding = Finding::lacks("NCCL", "not found", "install it", json!(null));
        let lines = finding.lines(true);
        assert_eq!(
            lines,
            [
                "lacks  NCCL       not found",
                "                  > install it"
            ]
        );
        assert_eq!(finding.json()["state"], "lacks");
    }

    #[test]
    fn lines_fit_the_terminal_whatever_was_found() {
        let words = "word ".repeat(100);
        let path = "/deep".repeat(100);
        for found in [words.as_str(), &path, &format!("x {path}"), "é\u{1b}[31m"] {
            let finding = Finding::wrong("GPU", found, found, json!(null));
            let lines = finding.lines(true);
            assert!(widths(&lines) <= COLUMNS, "{lines:?}");
            assert!(lines.len() <= 4, "{lines:?}");
            assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
        }
        let lines = wrapped("one two three", 7);
        assert_eq!(lines, ["one two", "  three"]);
    }

    #[test]
    fn cures_of_what_is_missing_go_first() {
        let findings = [
            Finding::fine("processor", "2 cores", json!(null)),
            Finding::lacks("GPU", "none", "buy one", json!(null)),
            Finding::wrong("launch", "RANK alone", "set WORLD_SIZE", json!(null)),
        ];
        assert_eq!(lines_of(&findings, 5).len(), 5);
        let short = lines_of(&findings, 4).join("\n");
        assert!(
            !short.contains("buy") && short.contains("> set WORLD_SIZE"),
            "{short}"
        );
    }
}
