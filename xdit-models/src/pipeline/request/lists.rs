//! Prompts and seeds in JSON: one value or a list.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A prompt or several.
struct Texts(Vec<String>);

/// A seed or several.
struct Seeds(Vec<i128>);

struct TextsVisitor;
struct SeedsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

impl<'de> Visitor<'de> for SeedsVisitor {
    type Value = Seeds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a list of them")
    }

    fn visit_u64<E: Error>(self, seed: u64) -> Result<Seeds, E> {
        Ok(Seeds(vec![seed.into()]))
    }

    fn visit_i64<E: Error>(self, seed: i64) -> Result<Seeds, E> {
        Ok(Seeds(vec![seed.into()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seeds, A::Error> {
        let mut seeds = Vec::new();
        while let Some(seed) = list.next_element()? {
            seeds.push(seed);
        }
        Ok(Seeds(seeds))
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextsVisitor)
    }
}

impl<'de> Deserialize<'de> for Seeds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SeedsVisitor)
    }
}

/// One text or a list of texts.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Texts::deserialize(from).map(|Texts(texts)| texts)
}

/// The same, or null.
pub(super) fn some_texts<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<String>>, D::Error> {
    Option::<Texts>::deserialize(from).map(|some| some.map(|Texts(texts)| texts))
}

/// One seed or a list of seeds.
pub(super) fn seeds<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i128>, D::Error> {
    Seeds::deserialize(from).map(|Seeds(seeds)| seeds)
}
