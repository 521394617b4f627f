//! Text to tokens. A word keeps its dots and double colons: `mma.sync.aligned`, `%tid.x` and `shared::cta` are one token
//! each. A directive is one word for each dot.

use crate::parse::error::ParseError;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    /// A name, an opcode with its modifiers, a directive or a number.
    Word(&'a str),
    /// Text between quotes.
    Text(&'a str),
    Mark(char),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    /// Counted from 1.
    pub(crate) line: usize,
}

fn in_word(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b) if b.is_ascii_alphanumeric() || b"_$%.".contains(b) => 1,
        Some(b':') if bytes.get(at + 1) == Some(&b':') => 2,
        _ => 0,
    }
}

/// Cuts a PTX text into tokens, without comments and without the debug directives that have no semicolon.
pub(crate) fn tokens(source: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let bytes = source.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b if b.is_ascii_whitespace() => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let length = source[at..]
                    .find("*/")
                    .ok_or_else(|| ParseError::new(line, "/*", "the comment has no end"))?;
                line += source[at..at + length].matches('\n').count();
                at += length + 2;
            }
            b'"' => {
                let length = source[at + 1..]
                    .find('"')
                    .ok_or_else(|| ParseError::new(line, "\"", "the string has no end"))?;
                let text = &source[at + 1..at + 1 + length];
                found.push(Token {
                    kind: Kind::Text(text),
                    line,
                });
                line += text.matches('\n').count();
                at += length + 2;
            }
            _ if in_word(bytes, at) > 0 => {
                // `.reg.b32` is two words.
                let directive = bytes[at] == b'.';
                while in_word(bytes, at) > 0 && !(directive && at > start && bytes[at] == b'.') {
                    at += in_word(bytes, at);
                }
                let word = &source[start..at];
                if [".loc", ".file"].contains(&word) {
                    while at < bytes.len() && bytes[at] != b'\n' {
                        at += 1;
                    }
                } else {
                    found.push(Token {
                        kind: Kind::Word(word),
                        line,
                    });
                }
            }
            b if b.is_ascii() => {
                found.push(Token {
                    kind: Kind::Mark(b as char),
                    line,
                });
                at += 1;
            }
            _ => {
                let text: String = source[at..].chars().take(1).collect();
                return Err(ParseError::new(line, &text, "PTX is ASCII text"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_dots_and_double_colons() {
        let found =
            tokens("// c\nL: ld.shared::cta.b32 %r1, [%rd2+-4]; /* x\ny */ @!%p1 bra L;").unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|t| match t.kind {
                Kind::Word(w) => w.to_owned(),
                Kind::Text(t) => format!("\"{t}\""),
                Kind::Mark(c) => c.to_string(),
            })
            .collect();
        assert_eq!(
            shown.join(" "),
            "L : ld.shared::cta.b32 %r1 , [ %rd2 + - 4 ] ; @ ! %p1 bra L ;"
        );
        assert_eq!(found[0].line, 2);
        assert_eq!(found[found.len() - 1].line, 3);
    }

    #[test]
    fn what_has_no_end_is_an_error() {
        assert!(tokens("/* x").is_err());
        assert!(tokens(".pragma \"x").is_err());
        assert!(tokens("é").is_err());
    }
}
