//! A position in the tokens of a text, and operands as they are written.

use crate::parse::error::ParseError;
use crate::parse::lexer::{Kind, Token};

/// An operand as it is written: names are not looked up yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw<'a> {
    /// A register, a symbol or a number; a number may be negative.
    Name { word: &'a str, negative: bool },
    /// `!%p1`
    Not(&'a str),
    /// `%p1|%p2`
    Pair(&'a str, &'a str),
    /// `{a, b}`
    Vector(Vec<Self>),
    /// `[base+offset]`, for tensors `[base, {x, y}]`
    Address {
        base: &'a str,
        offset: i64,
        coordinates: Vec<Self>,
    },
}

pub(crate) struct Cursor<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(tokens: Vec<Token<'a>>) -> Self {
        Self { tokens, at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<Kind<'a>> {
        self.tokens.get(self.at).map(|t| t.kind)
    }

    pub(crate) fn after(&self, steps: usize) -> Option<Kind<'a>> {
        self.tokens.get(self.at + steps).map(|t| t.kind)
    }

    /// The line of the next token, or of the last one at the end.
    pub(crate) fn line(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |t| t.line)
    }

    pub(crate) fn advance(&mut self) -> Option<Kind<'a>> {
        let kind = self.peek();
        self.at += 1;
        kind
    }

    /// Moves past a mark if it is next.
    pub(crate) fn skip(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(Kind::Mark(mark));
        self.at += usize::from(found);
        found
    }

    /// Moves past a word if it is next.
    pub(crate) fn skip_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Kind::Word(word));
        self.at += usize::from(found);
        found
    }

    /// An error about the next token.
    pub(crate) fn error(&self, reason: impl Into<String>) -> ParseError {
        let text = match self.peek() {
            Some(Kind::Word(word) | Kind::Text(word)) => word.to_owned(),
            Some(Kind::Mark(mark)) => mark.to_string(),
            None => "end of the text".to_owned(),
        };
        ParseError::new(self.line(), &text, reason)
    }

    pub(crate) fn expect(&mut self, mark: char) -> Result<(), ParseError> {
        if self.skip(mark) {
            Ok(())
        } else {
            Err(self.error(format!("`{mark}` is expected")))
        }
    }

    pub(crate) fn word(&mut self) -> Result<&'a str, ParseError> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.error("a name is expected")),
        }
    }

    pub(crate) fn integer(&mut self) -> Result<i64, ParseError> {
        let negative = self.skip('-');
        let error = self.error("an integer is expected");
        let value = integer(self.word()?).ok_or(error)? as i64;
        Ok(if negative {
            value.wrapping_neg()
        } else {
            value
        })
    }

    /// The operand that begins here.
    pub(crate) fn operand(&mut self) -> Result<Raw<'a>, ParseError> {
        if self.skip('{') {
            return Ok(Raw::Vector(self.vector()?));
        }
        if self.skip('[') {
            return self.address();
        }
        if self.skip('!') {
            return Ok(Raw::Not(self.word()?));
        }
        let negative = self.skip('-');
        let word = self.word()?;
        if self.skip('|') {
            return Ok(Raw::Pair(word, self.word()?));
        }
        Ok(Raw::Name { word, negative })
    }

    fn vector(&mut self) -> Result<Vec<Raw<'a>>, ParseError> {
        let mut parts = Vec::new();
        while !self.skip('}') {
            if let Some(Kind::Mark('{' | '[')) = self.peek() {
                return Err(self.error("a part of a vector is a register or a number"));
            }
            parts.push(self.operand()?);
            if !self.skip(',') && self.peek() != Some(Kind::Mark('}')) {
                return Err(self.error("`,` or `}` is expected"));
            }
        }
        Ok(parts)
    }

    fn address(&mut self) -> Result<Raw<'a>, ParseError> {
        let base = self.word()?;
        let mut offset = 0;
        let mut coordinates = Vec::new();
        if self.skip('+') || self.peek() == Some(Kind::Mark('-')) {
            offset = self.integer()?;
        }
        if self.skip(',') {
            self.expect('{')?;
            coordinates = self.vector()?;
        }
        self.expect(']')?;
        Ok(Raw::Address {
            base,
            offset,
            coordinates,
        })
    }
}

/// The value of an integer literal: decimal, `0x`, `0b` or octal, with or without a final `U`.
pub(crate) fn integer(word: &str) -> Option<u64> {
    let digits = word.strip_suffix(['U', 'u']).unwrap_or(word);
    let radix = |prefix: [&str; 2], radix| {
        let rest = prefix.iter().find_map(|p| digits.strip_prefix(p))?;
        u64::from_str_radix(rest, radix).ok()
    };
    radix(["0x", "0X"], 16)
        .or_else(|| radix(["0b", "0B"], 2))
        .or_else(|| {
            let octal = digits.len() > 1 && digits.starts_with('0');
            u64::from_str_radix(digits, if octal { 8 } else { 10 }).ok()
        })
}

/// The bits of a literal: `0f` and `0d` give the bits of a float, which has its sign in them; everything else is an integer.
pub(crate) fn literal(word: &str, negative: bool) -> Option<u64> {
    if negative {
        return integer(word).map(u64::wrapping_neg);
    }
    let bits = ["0f", "0F", "0d", "0D"]
        .iter()
        .find_map(|p| word.strip_prefix(p));
    match bits {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => integer(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::lexer::tokens;

    #[test]
    fn literals() {
        assert_eq!(literal("0f3F800000", false), Some(0x3f80_0000));
        assert_eq!(literal("0d3FF0000000000000", false), Some(1f64.to_bits()));
        assert_eq!(literal("0x1FU", false), Some(31));
        assert_eq!(literal("010", false), Some(8));
        assert_eq!(literal("18446744073709551615", false), Some(u64::MAX));
        assert_eq!(literal("%r1", false), None);
        assert_eq!(literal("1", true), Some(u64::MAX));
        assert_eq!(literal("0f3F800000", true), None);
    }

    #[test]
    fn operands() {
        let mut cursor =
            Cursor::new(tokens("{%r1, _} [%rd1+-8] [%rd2, {%r3, %r4}] !%p1 %r5|%p2 -7").unwrap());
        let name = |word| Raw::Name {
            word,
            negative: false,
        };
        let mut next = || cursor.operand().unwrap();
        assert_eq!(next(), Raw::Vector(vec![name("%r1"), name("_")]));
        assert_eq!(
            next(),
            Raw::Address {
                base: "%rd1",
                offset: -8,
                coordinates: vec![]
            }
        );
        let coordinates = vec![name("%r3"), name("%r4")];
        assert_eq!(
            next(),
            Raw::Address {
                base: "%rd2",
                offset: 0,
                coordinates
            }
        );
        assert_eq!(next(), Raw::Not("%p1"));
        assert_eq!(next(), Raw::Pair("%r5", "%p2"));
        assert_eq!(
            next(),
            Raw::Name {
                word: "7",
                negative: true
            }
        );
    }
}
