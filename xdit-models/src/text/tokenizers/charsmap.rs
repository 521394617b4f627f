//! Checks a `precompiled_charsmap`, SentencePiece's compiled normalisation rules, before the tokenizers library reads it.
//!
//! The format: the length of a trie in bytes (u32), the trie as a double array of u32 units (darts-clone), and the replacement
//! texts, each with a zero byte at its end. The library indexes the trie and the texts without checks.

use ::tokenizers::normalizers::Precompiled;
use serde_json::Value;

use super::json;
use super::limits::MAX_PART_BYTES;
use crate::quote;

/// The longest text of a rule, in bytes. The longest known one has 33.
const MAX_RULE_BYTES: usize = 64;
/// The number of bytes of a text that are measured at a time.
const MEASURED: usize = 4096;

/// Returns the checked charsmap in a step of a normalizer, if there is one.
pub(super) fn of_step(step: &Value) -> Result<Option<Vec<u8>>, String> {
    let Value::String(text) = &step["precompiled_charsmap"] else {
        return Ok(None);
    };
    let map = decode_base64(text).ok_or("`precompiled_charsmap` is not base64")?;
    check(&map)?;
    Ok(Some(map))
}

/// Returns the first charsmap in the part `normalizer` of a `tokenizer.json`, after checking all of them.
pub(super) fn of_normalizer(normalizer: &Value) -> Result<Option<Vec<u8>>, String> {
    let mut first = None;
    for step in json::steps(normalizer, "normalizer", "normalizers")? {
        first = first.or(of_step(step)?);
    }
    Ok(first)
}

/// Returns the library's form of a charsmap that [`check`] has accepted.
pub(super) fn precompiled(map: &[u8]) -> Result<Precompiled, String> {
    Precompiled::from(map).map_err(|error| error.to_string())
}

/// Returns about how long `text` becomes. The length is exact, unless a measurement separates characters that belong together.
pub(super) fn mapped_len(map: &Precompiled, text: &str) -> usize {
    let mut len = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = MEASURED.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (start, after) = rest.split_at(end);
        len += map.normalize_string(start).len();
        rest = after;
    }
    len
}

/// Follows every path of the trie, and checks that it stays inside and that each value is the start of a text.
pub(super) fn check(map: &[u8]) -> Result<(), String> {
    let bad = || "corrupt precompiled_charsmap".to_string();
    if map.len() > MAX_PART_BYTES {
        return Err(format!(
            "precompiled_charsmap has more than {}",
            quote::bytes(MAX_PART_BYTES as u64)
        ));
    }
    let (len, rest) = map.split_first_chunk::<4>().ok_or_else(bad)?;
    // The library reads a quarter of the length as units and the rest as text.
    let (trie, texts) = rest
        .split_at_checked(u32::from_le_bytes(*len) as usize / 4 * 4)
        .ok_or_else(bad)?;
    let texts = std::str::from_utf8(texts).map_err(|_| bad())?;
    let units: Vec<usize> = trie
        .as_chunks()
        .0
        .iter()
        .map(|unit| u32::from_le_bytes(*unit) as usize)
        .collect();
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(*units.first().ok_or_else(bad)?)];
    while let Some(node) = open.pop() {
        for label in 1..=255 {
            let unit = *units.get(node ^ label).ok_or_else(bad)?;
            if unit & (1 << 31 | 0xff) != label {
                continue;
            }
            let child = node ^ label ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = units.get(child).ok_or_else(bad)? & ((1 << 31) - 1);
                if !texts.is_char_boundary(value) {
                    return Err(bad());
                }
                let rest = &texts.as_bytes()[value..];
                if rest.iter().take(MAX_RULE_BYTES + 1).all(|byte| *byte != 0)
                    && rest.len() > MAX_RULE_BYTES
                {
                    return Err(format!(
                        "precompiled_charsmap has a rule of more than {MAX_RULE_BYTES} bytes"
                    ));
                }
            }
            match seen.get_mut(child) {
                Some(seen) if *seen => {}
                Some(seen) => {
                    *seen = true;
                    open.push(child);
                }
                None => return Err(bad()),
            }
        }
    }
    Ok(())
}

/// Returns the position of a unit's children, relative to the unit.
fn offset(unit: usize) -> usize {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}

/// Decodes standard base64 with padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 || !bytes.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let mut bits = 0_u32;
    for (i, byte) in bytes[..bytes.len() - padding]
        .iter()
        .chain(&b"AA"[..padding])
        .enumerate()
    {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        if i % 4 == 3 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    out.truncate(out.len() - padding);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("/+8A", b"\xff\xef\0"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg=", "Z===", "Z!==", "===="] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    /// A trie with one path, label 1, whose value is `value`.
    fn map(value: u32, texts: &[u8]) -> Vec<u8> {
        let mut units = vec![0_u32; 512];
        units[0] = 256 << 10;
        // Node 256: its child with label 1 has its own children at 257 ^ 3 = 258, where the value lies.
        units[257] = 1 | 1 << 8 | 3 << 10;
        units[258] = value | 1 << 31;
        let trie: Vec<u8> = units.into_iter().flat_map(u32::to_le_bytes).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, texts].concat()
    }

    #[test]
    fn values_must_start_a_text() {
        assert_eq!(check(&map(0, "é\0".as_bytes())), Ok(()));
        assert!(check(&map(1, "é\0".as_bytes())).is_err());
        assert!(check(&map(99, "é\0".as_bytes())).is_err());
        assert!(check(&map(0, b"\xff\0")).is_err());
        let long = [&[b'a'; 65][..], b"\0"].concat();
        assert!(
            check(&map(0, &long))
                .unwrap_err()
                .contains("more than 64 bytes")
        );
        assert_eq!(check(&map(1, &long)), Ok(()));
    }

    #[test]
    fn paths_must_stay_inside() {
        let mut bytes = map(0, b"\0");
        assert!(check(&bytes[..100]).is_err());
        bytes[4..8].copy_from_slice(&(300_u32 << 10).to_le_bytes());
        assert!(check(&bytes).is_ok(), "another block of the same array");
        bytes[4..8].copy_from_slice(&(400_000_u32 << 10).to_le_bytes());
        assert!(check(&bytes).is_err());
        assert!(check(&u32::MAX.to_le_bytes()).is_err());
        assert!(check(b"").is_err() && check(&[0; 4]).is_err());
    }
}
