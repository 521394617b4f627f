//! safetensors files, written straight from memory.
//!
//! Format: a length (u64, little-endian), a JSON header of that length, the data; offsets count from its start.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use xdit_kernels::{DType, Tensor};

/// One named tensor of a file.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it holds.
    pub data: EntryData<'a>,
}

/// The numbers of an [`Entry`].
#[derive(Debug)]
pub(crate) enum EntryData<'a> {
    /// A tensor, in its own dtype.
    Tensor(&'a Tensor),
    /// Token ids, as the int64 that transformers has: one row a prompt, all of one length.
    Ids(&'a [Vec<u32>]),
}

impl EntryData<'_> {
    fn dtype(&self) -> &'static str {
        match self {
            Self::Ids(_) => "I64",
            Self::Tensor(tensor) => match tensor.dtype() {
                DType::BF16 => "BF16",
                DType::F16 => "F16",
                _ => "F32",
            },
        }
    }

    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Ids(rows) => vec![rows.len(), rows.first().map_or(0, Vec::len)],
            Self::Tensor(tensor) => tensor.shape().to_vec(),
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::Ids(rows) => rows.iter().map(|row| row.len() * 8).sum(),
            Self::Tensor(tensor) => tensor.byte_len(),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Tensor(tensor) => {
                let bytes = tensor.host_bytes_blocking().map_err(io::Error::other)?;
                out.write_all(&bytes)
            }
            Self::Ids(rows) => {
                let bytes: Vec<u8> = rows
                    .iter()
                    .flatten()
                    .flat_map(|&id| i64::from(id).to_le_bytes())
                    .collect();
                out.write_all(&bytes)
            }
        }
    }
}

/// Writes the tensors and, beside them, texts by name.
///
/// # Errors
/// An error of the file system.
pub(crate) fn write(
    out: &mut impl Write,
    entries: &[Entry<'_>],
    texts: &[(&str, String)],
) -> io::Result<()> {
    let mut header = Map::new();
    let format = ("format", "pt".to_owned());
    let texts = texts.iter().chain([&format]);
    let metadata: Map<String, Value> = texts
        .map(|(key, text)| ((*key).to_owned(), text.clone().into()))
        .collect();
    header.insert("__metadata__".into(), metadata.into());
    let mut offset = 0;
    for Entry { name, data } in entries {
        let end = offset + data.byte_len();
        header.insert(
            (*name).to_owned(),
            json!({"dtype": data.dtype(), "shape": data.shape(), "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    // Spaces up to a multiple of 8, so that the data is aligned in a mapping.
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    entries.iter().try_for_each(|entry| entry.data.write(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};
    use xdit_kernels::Device;

    #[test]
    fn others_read_it() {
        let x = Tensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], [1, 2, 3], &Device::cpu()).unwrap();
        let half = x.to_dtype(DType::BF16).unwrap();
        let ids = [vec![1u32, 2, 49407], vec![3, 4, 5]];
        let entries = [
            Entry {
                name: "half",
                data: EntryData::Tensor(&half),
            },
            Entry {
                name: "input_ids",
                data: EntryData::Ids(&ids),
            },
            Entry {
                name: "x",
                data: EntryData::Tensor(&x),
            },
        ];
        let mut bytes = Vec::new();
        write(&mut bytes, &entries, &[("xdit", "{\"a\": \"ü\"}".into())]).unwrap();

        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = file.tensor("x").unwrap();
        assert_eq!(
            (read.dtype(), read.shape(), read.data()),
            (
                Dtype::F32,
                &[1, 2, 3][..],
                &*x.host_bytes_blocking().unwrap()
            )
        );
        assert_eq!(file.tensor("half").unwrap().dtype(), Dtype::BF16);
        let read = file.tensor("input_ids").unwrap();
        assert_eq!((read.dtype(), read.shape()), (Dtype::I64, &[2, 3][..]));
        assert_eq!(read.data()[16..24], 49407i64.to_le_bytes());
        let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(length % 8, 0);
        let texts = metadata.metadata().as_ref().unwrap();
        assert_eq!(texts["xdit"], "{\"a\": \"ü\"}");
        assert_eq!(texts["format"], "pt");
    }
}
