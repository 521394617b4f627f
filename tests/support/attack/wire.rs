//! Damages the structure of binary formats: SentencePiece's protobuf, safetensors' headers, the chunks of a PNG.

use serde_json::Value;

use super::Rng;
use super::json::{Tree, bounded};

/// A field of a protobuf message.
#[derive(Clone, Debug)]
struct Field {
    key: u64,
    /// What follows the key, without a length.
    value: Vec<u8>,
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for i in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn fields(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let len = match key & 7 {
            0 => {
                let mut value = Vec::new();
                write_varint(varint(&mut bytes)?, &mut value);
                fields.push(Field { key, value });
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        fields.push(Field {
            key,
            value: value.to_vec(),
        });
    }
    Some(fields)
}

fn write_field(field: &Field, lie: Option<u64>, out: &mut Vec<u8>) {
    write_varint(field.key, out);
    if field.key & 7 == 2 {
        write_varint(lie.unwrap_or(field.value.len() as u64), out);
    }
    out.extend_from_slice(&field.value);
}

/// A protobuf message with one place damaged: fields dropped, doubled, nested, moved, of other numbers and types, of lengths
/// that lie.
#[must_use]
pub fn protobuf(message: &[u8], rng: &mut Rng) -> Vec<u8> {
    let Some(mut fields) = fields(message).filter(|fields| !fields.is_empty()) else {
        return message.to_vec();
    };
    // The last fields of a model are its specifications, the others its pieces.
    let i = match rng.one_in(3) {
        true => fields.len() - 1 - rng.below(fields.len().min(4)),
        false => rng.below(fields.len()),
    };
    let mut lie = None;
    match rng.below(8) {
        0 => drop(fields.remove(i)),
        1 => {
            let field = fields[i].clone();
            let times = bounded(*rng.pick(&[1, 2, 100, 1_000_001]), field.value.len());
            fields.splice(i..i, std::iter::repeat_n(field, times));
        }
        2 => {
            for _ in 0..*rng.pick(&[1, 3, 1_000]) {
                let mut value = Vec::new();
                write_field(&fields[i], None, &mut value);
                fields[i] = Field {
                    key: fields[i].key,
                    value,
                };
            }
        }
        3 => fields[i].key = rng.any() >> rng.below(64),
        4 => lie = Some(rng.any() >> rng.below(64)),
        5 => fields[i].value = vec![b'x'; *rng.pick(&[0, 1, 1_025, 100_000])],
        6 => {
            let j = rng.below(fields.len());
            let value = fields[j].value.clone();
            fields[i].value = value;
        }
        _ => fields[i].value = protobuf(&fields[i].value, rng),
    }
    let mut out = Vec::new();
    for (n, field) in fields.iter().enumerate() {
        write_field(field, lie.filter(|_| n == i), &mut out);
    }
    out
}

/// A safetensors file whose header is damaged: its length, its JSON, its offsets.
#[must_use]
pub fn safetensors(file: &[u8], rng: &mut Rng) -> Vec<u8> {
    let parsed = file.split_first_chunk::<8>().and_then(|(len, rest)| {
        let (header, data) = rest.split_at_checked(u64::from_le_bytes(*len) as usize)?;
        Some((serde_json::from_slice::<Value>(header).ok()?, data))
    });
    let Some((header, data)) = parsed else {
        return file.to_vec();
    };
    let mut tree = Tree::from(&header);
    for _ in 0..=rng.below(3) {
        tree.damage(rng, &[]);
    }
    let header = tree.text();
    let len = match rng.one_in(8) {
        true => rng.any() >> rng.below(64),
        false => header.len() as u64,
    };
    let data = &data[..data.len()
        - if rng.one_in(8) {
            rng.below(data.len())
        } else {
            0
        }];
    [&len.to_le_bytes(), header.as_bytes(), data].concat()
}

/// A PNG with one chunk damaged, and its sums right, so that what is inside is read.
#[must_use]
pub fn png(file: &[u8], rng: &mut Rng) -> Vec<u8> {
    let Some((signature, mut rest)) = file.split_at_checked(8) else {
        return file.to_vec();
    };
    let mut chunks: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let (Some(name), Some(data)) = (after.get(..4), after.get(4..4 + len)) else {
            break;
        };
        chunks.push((name.to_vec(), data.to_vec()));
        rest = after.get(len + 8..).unwrap_or_default();
    }
    let i = rng.below(chunks.len());
    let record = chunks
        .iter()
        .position(|(_, data)| data.starts_with(b"xdit\0"));
    let mut lie = None;
    match (rng.below(8), record) {
        (0, _) => drop(chunks.remove(i)),
        (1, _) => {
            let chunk = chunks[i].clone();
            let times = bounded(*rng.pick(&[1, 3, 1_000]), chunk.1.len());
            chunks.splice(i..i, std::iter::repeat_n(chunk, times));
        }
        (2, _) => {
            let at = rng.below(13);
            let header = &mut chunks[0].1;
            if let Some(byte) = header.get_mut(at) {
                *byte = rng.any() as u8;
            }
        }
        (3, _) => lie = Some(rng.any() as u32 >> rng.below(32)),
        (_, Some(record)) => {
            let data = &mut chunks[record].1;
            // The text comes after the keyword, and in an iTXt chunk after four further zeros.
            let start = data.iter().position(|byte| *byte == b'{').unwrap_or(5);
            if let Ok(json) = serde_json::from_slice::<Value>(&data[start..]) {
                let mut tree = Tree::from(&json);
                for _ in 0..=rng.below(2) {
                    tree.damage(rng, &[]);
                }
                data.truncate(start);
                data.extend_from_slice(of_little_work(tree.text()).as_bytes());
            }
        }
        (_, None) => {}
    }
    let mut out = signature.to_vec();
    for (n, (name, data)) in chunks.iter().enumerate() {
        let len = lie.filter(|_| n == i).unwrap_or(data.len() as u32);
        let sum = crc32(&[&name[..], data].concat());
        out.extend([&len.to_be_bytes()[..], name, data, &sum.to_be_bytes()].concat());
    }
    out
}

/// The text of a record, with numbers that honestly ask for hours of work (65,537 steps are legal) made small.
fn of_little_work(text: String) -> String {
    let Ok(mut record) = serde_json::from_str::<Value>(&text) else {
        return text;
    };
    let mut mended = false;
    for name in ["num_inference_steps", "num_images_per_prompt"] {
        let number = record
            .get_mut("request")
            .and_then(|request| request.get_mut(name));
        if let Some(number) = number
            && number.as_f64().is_some_and(|n| (300.0..=1e6).contains(&n))
        {
            *number = 3.into();
            mended = true;
        }
    }
    match mended {
        true => record.to_string(),
        false => text,
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
        sum
    })
}
