//! Escapes and cuts text from outside (files, the hub, prompts, paths) for messages.
//!
//! A message that quotes such text is always one line of bounded length. It shows every character on which a terminal would
//! act, and reads from left to right. [`Error`](crate::Error) escapes and cuts its fields when it is displayed. Programs that
//! print other text from outside can call the same functions.

use std::fmt::Display;
use std::ops::Range;

/// The longest quotation of a value, in characters.
pub const MAX_QUOTE: usize = 80;
/// The longest name of a file in a message, in characters.
pub const MAX_NAME: usize = 300;
/// The longest reason or list in a message, in characters.
pub const MAX_REASON: usize = 600;
/// The longest line that is printed, in characters: no message is longer.
pub const MAX_LINE: usize = 2000;

/// Returns whether a terminal acts on `c` or hides it: control characters, line and paragraph separators, marks that change the
/// direction of text, invisible marks and tags.
///
/// Joiners (U+200C, U+200D) are not hidden, because Persian and emoji need them.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{fffe}'..='\u{ffff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` on one line: each character that [`is_hidden`] is written as in a Rust string, such as `\n` and `\u{1b}`.
///
/// # Examples
/// ```
/// assert_eq!(xdit_models::quote::escape("a\x1b[31m\nb"), r"a\u{1b}[31m\nb");
/// ```
#[must_use]
pub fn escape(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        push(&mut line, c);
    }
    line
}

/// Escapes each line of `text` as [`escape`] does. The line breaks stay.
#[must_use]
pub fn escape_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => lines.push(c),
            _ => push(&mut lines, c),
        }
    }
    lines
}

/// Returns a value for a message: escaped, and cut after [`MAX_QUOTE`] characters.
///
/// # Examples
/// ```
/// let value = xdit_models::quote::shorten(&"x".repeat(125_000));
/// assert_eq!(value, "x".repeat(80) + "…");
/// ```
#[must_use]
pub fn shorten(text: &str) -> String {
    head(text, MAX_QUOTE)
}

/// Returns a reason or a list for a message: escaped, and cut after [`MAX_REASON`] characters.
#[must_use]
pub fn reason(text: &str) -> String {
    head(text, MAX_REASON)
}

/// Returns the name of a file or folder for a message: escaped, and without its middle if it has more than [`MAX_NAME`]
/// characters.
#[must_use]
pub fn name(text: &str) -> String {
    middle(text, MAX_NAME)
}

/// Returns a whole line for printing: escaped, and without its middle if it has more than [`MAX_LINE`] characters.
#[must_use]
pub fn line(text: &str) -> String {
    middle(text, MAX_LINE)
}

/// Returns whether `text` has the form of every message: one line of at most [`MAX_LINE`] characters, none of which
/// [`is_hidden`].
///
/// # Examples
/// ```
/// use xdit_models::quote::is_line;
/// assert!(is_line("vae/config.json: not valid JSON"));
/// assert!(!is_line("a\nb") && !is_line("\u{202e}") && !is_line(&"x".repeat(2001)));
/// ```
#[must_use]
pub fn is_line(text: &str) -> bool {
    !text.contains(is_hidden) && text.chars().nth(MAX_LINE).is_none()
}

/// `text` cut after [`MAX_QUOTE`] characters and not escaped: for JSON, which has escapes of its own.
#[must_use]
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Writes characters of JSON text that [`is_hidden`] as `\uXXXX`. serde_json does not escape those above U+007E. They occur
/// only inside strings, so the value stays the same.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match is_hidden(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped += &format!("\\u{unit:04x}");
                }
            }
            false => escaped.push(c),
        }
    }
    escaped
}

/// Returns text for a place with room for `longest` characters: escaped, and without its middle if it is longer.
///
/// # Examples
/// ```
/// assert_eq!(xdit_models::quote::within("/home/me/models/flux", 12), "/home…s/flux");
/// ```
#[must_use]
pub fn within(text: &str, longest: usize) -> String {
    middle(text, longest)
}

/// Returns a number of things: `1 step`, `2 steps`.
///
/// # Examples
/// ```
/// use xdit_models::quote::counted;
/// assert_eq!((counted(1, "step"), counted(0, "step")), ("1 step".into(), "0 steps".into()));
/// ```
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Returns the values of a list, or the sizes of a tensor: `[2, 16]`.
///
/// # Examples
/// ```
/// assert_eq!(xdit_models::quote::list(&[2, 16]), "[2, 16]");
/// ```
#[must_use]
pub fn list(values: &[impl Display]) -> String {
    format!("[{}]", joined(values, ", "))
}

/// Returns the values with `between` between them.
pub(crate) fn joined(values: &[impl Display], between: &str) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(between)
}

/// Returns ranges as Rust writes them: `0..4, 8..12`.
pub(crate) fn ranges(ranges: &[Range<usize>]) -> String {
    let ranges = ranges.iter().map(|it| format!("{}..{}", it.start, it.end));
    ranges.collect::<Vec<_>>().join(", ")
}

fn push(line: &mut String, c: char) {
    match is_hidden(c) {
        true => line.extend(c.escape_default()),
        false => line.push(c),
    }
}

/// Returns the first `longest` characters of `text`, escaped, and `…` if there were more. An escape counts as several
/// characters and is never cut.
fn head(text: &str, longest: usize) -> String {
    let mut line = String::new();
    let mut len = 0;
    let mut rest = text.chars();
    for c in rest.by_ref() {
        let before = line.len();
        push(&mut line, c);
        len += line[before..].chars().count();
        if len > longest {
            line.truncate(before);
            // Text that was cut before already ends with this mark.
            line.push('…');
            return line;
        }
    }
    line
}

/// `text`, escaped; above `longest` characters its start and its end with `…` between them.
fn middle(text: &str, longest: usize) -> String {
    let mut chars = text.chars();
    // Looks no further than needed, because the text may have megabytes.
    if chars.by_ref().take(longest).count() < longest || chars.next().is_none() {
        let whole = escape(text);
        if whole.chars().count() <= longest {
            return whole;
        }
    }
    let tail: Vec<String> = {
        let mut len = 0;
        text.chars()
            .rev()
            .map(|c| escape(c.encode_utf8(&mut [0; 4])))
            .take_while(|c| {
                len += c.len();
                len <= longest / 2
            })
            .collect()
    };
    let start = head(text, longest - longest / 2 - 1);
    let start = start.strip_suffix('…').unwrap_or(&start);
    let end: String = tail.into_iter().rev().collect();
    format!("{start}…{end}")
}

/// A number of bytes in the largest binary unit that leaves a whole part.
///
/// # Examples
/// ```
/// use xdit_models::quote::bytes;
/// assert_eq!(bytes(1536), "1.5 KiB");
/// assert_eq!(bytes(21 << 30), "21 GiB");
/// ```
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What rounds to 1024 is one of the next unit.
    while value >= if unit == 0 { 1024. } else { 1023.5 } && unit + 1 < units.len() {
        value /= 1024.;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 9.95 => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "a\n\r\t\0\u{1b}]0;x\u{7}\u{7f}\u{9b}31m\u{202e}\u{2066}\u{2028}\u{feff}\u{200b}\u{e0041}b";

    #[test]
    fn units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(256 << 20), "256 MiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes((10 << 30) - 1), "10 GiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
    }

    #[test]
    fn hidden_characters_are_shown() {
        let shown = escape(HOSTILE);
        assert!(!shown.contains(is_hidden), "{shown:?}");
        assert!(shown.starts_with(r"a\n\r\t\u{0}\u{1b}]0;x"), "{shown}");
        assert_eq!(escape_lines("a\n\x1b\nb"), "a\n\\u{1b}\nb");
    }

    #[test]
    fn readable_text_stays_as_it_is() {
        for text in [
            "1024",
            r#"C:\models\"x""#,
            "ein Löwe, e\u{301}",
            "一只猫\u{3000}猫",
            "می\u{200c}خواهم",
            "👩\u{200d}🚀",
        ] {
            assert_eq!(escape(text), text);
            assert_eq!(shorten(text), text);
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(shorten(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(shorten(&"x".repeat(81)), "x".repeat(80) + "…");
        // No escape is cut in two.
        let escapes = shorten(&"\x1b".repeat(1000));
        assert_eq!(escapes, r"\u{1b}".repeat(13) + "…");
        let path = name(&format!("/{}vae/config.json", "d/".repeat(100_000)));
        assert!(path.starts_with("/d/d/") && path.ends_with("/d/vae/config.json"));
        assert!(path.chars().count() <= MAX_NAME, "{path}");
        let hostile = HOSTILE.repeat(100);
        assert!(is_line(&line(&hostile.repeat(100))));
        assert!(name(&hostile).chars().count() <= MAX_NAME);
        assert_eq!(line(&"é".repeat(MAX_LINE)), "é".repeat(MAX_LINE));
    }

    #[test]
    fn to_quote_twice_is_to_quote_once() {
        for text in [&HOSTILE.repeat(200), &"x".repeat(10_000), "short"] {
            for quote in [shorten, reason, name, line] {
                assert_eq!(quote(&quote(text)), quote(text));
            }
        }
    }

    #[test]
    fn json_means_the_same() {
        let json = serde_json::json!({"name": HOSTILE}).to_string();
        let escaped = escape_json(&json);
        assert!(!escaped.contains(is_hidden), "{escaped:?}");
        let value: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(value["name"], HOSTILE);
    }
}
