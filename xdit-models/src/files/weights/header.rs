//! The header of a safetensors file. It is checked before any tensor is read.
//!
//! The format: eight bytes with the length of the header (little-endian); a JSON object that maps names to dtype, shape and a
//! range of bytes after the header; then the bytes. Ranges must follow each other without gap or overlap and end with the file.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};
use xdit_kernels::DType;

use crate::error::{Error, Result, shorten};
use crate::quote;

/// The longest header, in bytes. That of FLUX.1-dev has about 100,000.
pub const MAX_HEADER_BYTES: usize = 16 << 20;
/// The largest number of tensors of one file.
const MAX_TENSORS: usize = 200_000;
/// The largest number of dims of a stored tensor.
const MAX_STORED_NDIM: usize = 16;

/// An element type, with its name in safetensors files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredDType(String);

impl StoredDType {
    /// Returns the dtype of kernels, or `None` for types that no kernel supports.
    #[must_use]
    pub fn dtype(&self) -> Option<DType> {
        match self.0.as_str() {
            "F32" => Some(DType::F32),
            "BF16" => Some(DType::BF16),
            "F16" => Some(DType::F16),
            _ => None,
        }
    }

    /// Returns the bytes of one element, or `None` for a type that is unknown or smaller than a byte.
    fn size(&self) -> Option<u64> {
        Some(match self.0.as_str() {
            "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ"
            | "F8_E5M2FNUZ" => 1,
            "U16" | "I16" | "F16" | "BF16" => 2,
            "U32" | "I32" | "F32" => 4,
            "U64" | "I64" | "F64" | "C64" => 8,
            _ => return None,
        })
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shorten(&self.0))
    }
}

/// The entry of one tensor in the header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorInfo {
    /// Its element type.
    pub dtype: StoredDType,
    /// Its dims, outermost first.
    pub shape: Vec<usize>,
    /// The position of its first byte in the file.
    pub offset: usize,
    /// The number of its bytes.
    pub len: usize,
}

/// The tensors of one file, by name.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// All tensors.
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Parses the header of `bytes`, the whole content of `file`.
    ///
    /// # Errors
    /// [`Error::BadFile`] if the file is shorter or longer than its header says, the header is too long or not JSON, a name
    /// occurs twice, or ranges overlap or leave gaps; [`Error::BadTensor`] if a range does not fit its shape and dtype.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        Self::parse_start(file, bytes, bytes.len())
    }

    /// Returns how many of a file's first bytes [`Header::parse_start`] needs, from the first eight: those of the header, or
    /// enough to recognise a file without one.
    #[must_use]
    pub fn byte_len(start: &[u8]) -> usize {
        let length = start.first_chunk().map(|&bytes| u64::from_le_bytes(bytes));
        match length {
            Some(length) if length <= MAX_HEADER_BYTES as u64 => 8 + length as usize,
            _ => 1024,
        }
    }

    /// Parses the header of a file of `byte_len` bytes that begins with `start`.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn parse_start(file: &str, start: &[u8], byte_len: usize) -> Result<Self> {
        let bad = |reason: String| Error::bad_file(file, reason);
        let start = &start[..start.len().min(byte_len)];
        let Some((length, rest)) = start.split_first_chunk::<8>() else {
            return Err(bad(format!(
                "{} is too short for a safetensors file",
                quote::bytes(byte_len as u64)
            )));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES as u64 {
            return Err(bad(format!(
                "not a safetensors file: a header of {}",
                quote::bytes(length)
            )));
        }
        let Some(json) = rest.get(..length as usize) else {
            return Err(bad(format!(
                "truncated: the header has {}, the file {}",
                quote::bytes(length),
                quote::bytes(byte_len as u64)
            )));
        };
        let RawHeader(raw) = serde_json::from_slice(json)
            .map_err(|error| bad(format!("corrupt safetensors header: {error}")))?;
        let start = 8 + length as usize;
        let available = byte_len.saturating_sub(start);
        let mut tensors = BTreeMap::new();
        for (name, tensor) in raw {
            tensors.insert(name.clone(), tensor.check(file, &name, start, available)?);
        }
        let header = Self { tensors };
        header.check_coverage(file, start, byte_len)?;
        Ok(header)
    }

    /// Checks that the ranges, in order, cover the data without gap or overlap.
    fn check_coverage(&self, file: &str, start: usize, end: usize) -> Result<()> {
        let mut ranges: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, info)| (info.offset, info.len, name))
            .collect();
        ranges.sort_unstable();
        let mut reached = start;
        for (offset, len, name) in ranges {
            if offset != reached {
                let what = if offset < reached {
                    "overlaps the tensor before it"
                } else {
                    "leaves a gap before it"
                };
                return Err(Error::bad_file(
                    file,
                    format!("tensor `{}` {what}", shorten(name)),
                ));
            }
            reached += len;
        }
        if reached != end {
            let extra = quote::bytes((end - reached) as u64);
            return Err(Error::bad_file(
                file,
                format!("{extra} after the last tensor"),
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    fn check(self, file: &str, name: &str, start: usize, available: usize) -> Result<TensorInfo> {
        let bad = |expected: String, found: String| Error::BadTensor {
            file: file.into(),
            tensor: shorten(name),
            expected,
            found,
        };
        let (begin, end) = self.data_offsets;
        if begin > end || end > available as u64 {
            let expected = format!("bytes inside the file's {available} (is it truncated?)");
            return Err(bad(expected, format!("bytes {begin} to {end}")));
        }
        if self.shape.len() > MAX_STORED_NDIM {
            return Err(bad(
                format!("at most {MAX_STORED_NDIM} dims"),
                quote::counted(self.shape.len(), "dim"),
            ));
        }
        let dtype = StoredDType(self.dtype);
        let count = self
            .shape
            .iter()
            .try_fold(1_u64, |product, dim| product.checked_mul(*dim));
        let (Some(count), true) = (
            count,
            self.shape.iter().all(|dim| usize::try_from(*dim).is_ok()),
        ) else {
            return Err(bad(
                "a number of elements below 2^64".into(),
                format!("shape {}", quote::list(&self.shape)),
            ));
        };
        if let Some(size) = dtype.size()
            && count.checked_mul(size) != Some(end - begin)
        {
            let found = format!(
                "{} for {dtype} {}",
                quote::counted((end - begin) as usize, "byte"),
                quote::list(&self.shape)
            );
            return Err(bad("as many bytes as dtype and shape need".into(), found));
        }
        Ok(TensorInfo {
            dtype,
            shape: self.shape.into_iter().map(|dim| dim as usize).collect(),
            offset: start + begin as usize,
            len: (end - begin) as usize,
        })
    }
}

/// The entries of the header without `__metadata__`. A visitor, because a map would keep the last one of two equal names.
struct RawHeader(BTreeMap<String, RawTensor>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let tensor = map.next_value()?;
            if tensors.len() >= MAX_TENSORS {
                return Err(de::Error::custom(format!(
                    "more than {MAX_TENSORS} tensors"
                )));
            }
            if tensors.contains_key(&name) {
                return Err(A::Error::custom(format!(
                    "tensor `{}` appears twice",
                    shorten(&name)
                )));
            }
            tensors.insert(name, tensor);
        }
        Ok(RawHeader(tensors))
    }
}

#[cfg(test)]
mod tests;
