//! Reads `spiece.model`: a SentencePiece model, which is a protobuf message
//! (sentencepiece `src/sentencepiece_model.proto`, `ModelProto`).

use ::tokenizers::AddedToken;

use super::limits::{MAX_ADDED_TOKENS, MAX_PIECES};
use super::vocabulary::Entries;

/// The content of a SentencePiece model that a tokenizer needs.
#[derive(Debug, Default)]
pub(super) struct SentencePiece {
    /// Pieces with scores, in the order of ids.
    pub(super) pieces: Entries,
    /// The symbols that are found before words are split: control symbols such as `</s>`, which are special, and symbols that
    /// the model's author does not want to split.
    pub(super) symbols: Vec<AddedToken>,
    /// The compiled normalisation rules. Empty if there are none.
    pub(super) charsmap: Vec<u8>,
}

impl SentencePiece {
    /// Reads the model in `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The pieces are counted before any is created.
        let (mut count, mut len) = (0, 0);
        for field in MessageFields(bytes) {
            if let (1, Field::Bytes(piece)) = field? {
                count += 1;
                len += piece.len();
            }
            if count > MAX_PIECES {
                return Err(format!("more than {MAX_PIECES} pieces"));
            }
        }
        let mut model = Self {
            pieces: Entries::with_capacity(count, len),
            ..Self::default()
        };
        for field in MessageFields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.push(piece)?,
                (2, Field::Bytes(trainer)) => check_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => {
                    for field in MessageFields(normalizer) {
                        if let (2, Field::Bytes(map)) = field? {
                            model.charsmap = map.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        if model.pieces.len() == 0 {
            return Err("not a SentencePiece model: it has no pieces".into());
        }
        Ok(model)
    }

    /// Adds the piece in the message `bytes`.
    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        const CONTROL: u64 = 3;
        const USER_DEFINED: u64 = 4;
        let (mut text, mut score, mut kind) = ("", 0.0, 0);
        for field in MessageFields(bytes) {
            match field? {
                (1, Field::Bytes(bytes)) => {
                    text = std::str::from_utf8(bytes)
                        .map_err(|error| format!("a piece is not UTF-8: {error}"))?;
                }
                (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
                (3, Field::Varint(value)) => kind = value,
                _ => {}
            }
        }
        self.pieces.push(text, None, Some(f64::from(score)))?;
        if kind == CONTROL || kind == USER_DEFINED {
            if self.symbols.len() == MAX_ADDED_TOKENS {
                return Err(format!("more than {MAX_ADDED_TOKENS} symbols"));
            }
            let symbol = AddedToken::from(text, kind == CONTROL);
            self.symbols.push(symbol.normalized(false));
        }
        Ok(())
    }
}

/// Refuses models that are not unigram.
fn check_trainer(bytes: &[u8]) -> Result<(), String> {
    const UNIGRAM: u64 = 1;
    for field in MessageFields(bytes) {
        if let (3, Field::Varint(kind)) = field?
            && kind != UNIGRAM
        {
            return Err(format!(
                "a SentencePiece model of type {kind}; only unigram (1) is supported"
            ));
        }
    }
    Ok(())
}

/// The value of a protobuf field.
#[derive(Debug)]
enum Field<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Iterates over the fields of a protobuf message with their numbers. The last item is the error, if there is one.
struct MessageFields<'a>(&'a [u8]);

impl<'a> MessageFields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for i in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed64)?,
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for MessageFields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "corrupt or truncated SentencePiece model".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with bytes in it.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len() as u8], value].concat()
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let score = [&[2 << 3 | 5][..], &(-1.5_f32).to_le_bytes()].concat();
        let piece = [
            bytes(1, "▁a".as_bytes()),
            score,
            vec![3 << 3, 3],
            vec![9 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        let file = [
            bytes(1, &piece.concat()),
            bytes(2, &[3 << 3, 1]),
            bytes(3, &bytes(2, b"map")),
        ]
        .concat();
        let model = SentencePiece::parse(&file).unwrap();
        assert_eq!(model.pieces.scored().collect::<Vec<_>>(), [("▁a", -1.5)]);
        assert_eq!(model.charsmap, b"map");
        let symbol = AddedToken::from("▁a", true).normalized(false);
        assert_eq!(model.symbols, [symbol]);
    }

    #[test]
    fn broken_files_are_errors() {
        for file in [
            &b""[..],
            b"\xff",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\x05ab",
            b"\x0b",
            b"hello",
            &bytes(1, &bytes(1, b"\xff\xfe")),
            &bytes(2, &[3 << 3, 2]),
        ] {
            assert!(SentencePiece::parse(file).is_err(), "{file:?}");
        }
    }
}
