//! Reads `spiece.model`: a SentencePiece model, which is a protobuf message
//! (sentencepiece `src/sentencepiece_model.proto`, `ModelProto`).

/// The most pieces of a model; mT5 has 250,112.
const MAX_PIECES: usize = 4_000_000;

/// A piece of a SentencePiece vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A control symbol such as `</s>`.
    Control,
    /// A symbol that the model's author wants in one piece.
    UserDefined,
    /// What was learned, the unknown piece, bytes.
    Other,
}

/// What a tokenizer needs of a SentencePiece model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SentencePiece {
    /// In the order of ids.
    pub(super) pieces: Vec<Piece>,
    /// The compiled normalisation rules; empty when there are none.
    pub(super) charsmap: Vec<u8>,
}

impl SentencePiece {
    /// The model in `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => {
                    if model.pieces.len() >= MAX_PIECES {
                        return Err(format!("more than {MAX_PIECES} pieces"));
                    }
                    model.pieces.push(piece_of(piece)?);
                }
                (2, Field::Bytes(trainer)) => check_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        if let (2, Field::Bytes(map)) = field? {
                            model.charsmap = map.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("not a SentencePiece model: it has no pieces".into());
        }
        Ok(model)
    }

    /// The texts of the symbols that are looked for before words are split, and whether they are control symbols.
    pub(super) fn symbols(&self) -> impl Iterator<Item = (&str, bool)> {
        self.pieces
            .iter()
            .filter(|piece| piece.kind != Kind::Other)
            .map(|piece| (piece.text.as_str(), piece.kind == Kind::Control))
    }
}

fn piece_of(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: Kind::Other,
    };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(text)) => {
                piece.text = std::str::from_utf8(text)
                    .map_err(|error| format!("a piece is not UTF-8: {error}"))?
                    .into();
            }
            (2, Field::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Varint(kind)) => {
                piece.kind = match kind {
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    _ => Kind::Other,
                };
            }
            _ => {}
        }
    }
    Ok(piece)
}

/// Refuses models that are not unigram.
fn check_trainer(bytes: &[u8]) -> Result<(), String> {
    const UNIGRAM: u64 = 1;
    for field in Fields(bytes) {
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

/// The fields of a protobuf message with their numbers; the last item is the error, if there is one.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
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

impl<'a> Iterator for Fields<'a> {
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
        assert_eq!(
            model.pieces,
            [Piece {
                text: "▁a".into(),
                score: -1.5,
                kind: Kind::Control
            }]
        );
        assert_eq!(model.charsmap, b"map");
        assert_eq!(model.symbols().collect::<Vec<_>>(), [("▁a", true)]);
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
