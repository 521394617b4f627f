//! One open file of a pipeline (mapped, part of the binary, or in memory), and tensors from its bytes.

use std::{borrow::Cow, sync::Arc};

use half::{bf16, f16};
use xdit_kernels::{DType, Device, Element, MappedFile, Tensor};

use crate::error::{Error, Result};
use crate::quote;

/// The bytes of a file, shared by the tensors made from them.
#[derive(Clone, Debug)]
pub(crate) enum FileBytes {
    Mapped(MappedFile),
    Static(&'static [u8]),
    Memory(Arc<Vec<u8>>),
    Start(Arc<FileStart>),
}

/// The start of a file that lies elsewhere: the header of weights.
#[derive(Debug)]
pub(crate) struct FileStart {
    /// Its first bytes.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the whole file.
    pub(crate) byte_len: usize,
}

impl FileBytes {
    /// Returns the number of bytes of the whole file.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Mapped(file) => file.byte_len(),
            Self::Static(bytes) => bytes.len(),
            Self::Memory(bytes) => bytes.len(),
            Self::Start(start) => start.byte_len,
        }
    }

    /// Returns the first `len` bytes, or all if there are fewer. Those of a mapped file are copied, because others may change
    /// them.
    pub(crate) fn start(&self, len: usize) -> Result<Cow<'_, [u8]>> {
        let len = len.min(self.byte_len());
        Ok(match self {
            Self::Mapped(file) => Cow::Owned(file.read_at(0, len)?),
            Self::Static(bytes) => Cow::Borrowed(&bytes[..len]),
            Self::Memory(bytes) => Cow::Borrowed(&bytes[..len]),
            Self::Start(start) => Cow::Borrowed(&start.bytes[..len.min(start.bytes.len())]),
        })
    }

    /// Returns the elements at `offset`. Mapped and static bytes are shared if they are aligned.
    pub(crate) fn tensor(&self, offset: usize, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let device = &Device::cpu();
        Ok(match self {
            Self::Mapped(file) => Tensor::from_mapped(file, offset, shape, dtype, device)?,
            Self::Static(bytes) => Tensor::from_static(bytes, offset, shape, dtype, device)?,
            Self::Memory(bytes) => match dtype {
                DType::BF16 => copy::<bf16>(bytes, offset, shape, device)?,
                DType::F16 => copy::<f16>(bytes, offset, shape, device)?,
                _ => copy::<f32>(bytes, offset, shape, device)?,
            },
            Self::Start(_) => {
                return Err(Error::bad_file(
                    "hub",
                    "only the headers of the weights were read; download the model first",
                ));
            }
        })
    }

    /// Releases the pages of these bytes from resident memory, if they belong to a file.
    pub(crate) fn release(&self, offset: usize, len: usize) {
        if let Self::Mapped(file) = self {
            file.release(offset, len);
        }
    }
}

/// Returns a copy of the elements at `offset`, because the bytes of a vector are not aligned.
fn copy<T: Element>(
    bytes: &[u8],
    offset: usize,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    let count = shape
        .iter()
        .try_fold(size_of::<T>(), |product, dim| product.checked_mul(*dim));
    let end = count.and_then(|len| offset.checked_add(len));
    let Some(range) = end.and_then(|end| bytes.get(offset..end)) else {
        return Err(Error::bad_file(
            "memory",
            format!(
                "{} at offset {offset} leaves {} B",
                quote::list(shape),
                bytes.len()
            ),
        ));
    };
    let values: Vec<T> = range
        .chunks_exact(size_of::<T>())
        .map(bytemuck::pod_read_unaligned)
        .collect();
    Ok(Tensor::from_slice(&values, shape, device)?)
}
