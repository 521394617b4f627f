//! The safetensors files of a component, mapped into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use xdit_kernels::Tensor;

use super::WeightSource;
use super::header::{Header, TensorInfo};
use super::index::WeightFiles;
use super::stamp::Stamp;
use crate::error::{Error, Result, shorten};
use crate::files::file_bytes::FileBytes;
use crate::files::source::ModelSource;
use crate::quote;

/// The weights of one component: all tensors of its safetensors files.
///
/// Opening reads only the headers. Tensors share the mapped files. When a tensor is requested, it is checked for NaN and
/// infinity.
#[derive(Debug)]
pub struct Weights {
    /// The name of the weights in messages: the only file, or the index.
    name: String,
    files: Vec<File>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    /// The tensors that an index lists but no file contains, with the file that should contain them.
    listed: BTreeMap<String, String>,
    asked: Mutex<BTreeSet<String>>,
    /// Whether tensors are checked for NaN and infinity.
    looks_through: bool,
}

#[derive(Clone, Debug)]
struct File {
    shown: String,
    bytes: FileBytes,
    /// Of a file on disk.
    stamp: Option<Stamp>,
}

impl Weights {
    /// Opens the weights of the folder `component` of `source`, of this `variant` (for example `fp16`) if one is requested.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if there are no weights, or a shard is missing; [`Error::BadFile`] and [`Error::BadTensor`] if an
    /// index or header is corrupt, a file is truncated, or a tensor is in two shards. A tensor that an index lists but no shard
    /// contains is an error only when it is requested, as in diffusers.
    pub fn open(source: &ModelSource, component: &str, variant: Option<&str>) -> Result<Self> {
        let found = WeightFiles::find(source, component, variant)?;
        let name = source.shown(found.index.as_ref().unwrap_or(&found.files[0]));
        let mut weights = Self::empty(name);
        for path in &found.files {
            weights.add(source, path)?;
        }
        let listed = found.map.into_iter();
        weights.listed = listed
            .filter(|(tensor, _)| !weights.tensors.contains_key(tensor))
            .map(|(tensor, path)| (tensor, source.shown(&path)))
            .collect();
        Ok(weights)
    }

    /// Opens the tensors of one safetensors file.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(source: &ModelSource, path: &str) -> Result<Self> {
        let mut weights = Self::empty(source.shown(path));
        weights.add(source, path)?;
        Ok(weights)
    }

    fn empty(name: String) -> Self {
        Self {
            name,
            files: Vec::new(),
            tensors: BTreeMap::new(),
            listed: BTreeMap::new(),
            asked: Mutex::default(),
            looks_through: true,
        }
    }

    /// Returns the same weights without the check for NaN and infinity. Comparing a model with the headers then reads no
    /// weight.
    pub(crate) fn unread(&self) -> Self {
        Self {
            name: self.name.clone(),
            files: self.files.clone(),
            tensors: self.tensors.clone(),
            listed: self.listed.clone(),
            asked: Mutex::default(),
            looks_through: false,
        }
    }

    /// Returns the stamps of all files on disk, which show whether a file has changed.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = &Stamp> {
        self.files.iter().filter_map(|file| file.stamp.as_ref())
    }

    fn add(&mut self, source: &ModelSource, path: &str) -> Result<()> {
        let shown = source.shown(path);
        let folder = source.path().filter(|_| !source.is_elsewhere(path));
        let stamp = folder.map(|folder| Stamp::of(&folder.join(path)));
        let bytes = source.open(path)?;
        let stamp = stamp.transpose()?;
        let start = bytes.start(Header::byte_len(&bytes.start(8)?))?;
        let header = Header::parse_start(&shown, &start, bytes.byte_len())?;
        let file = self.files.len();
        for (name, info) in header.tensors {
            if let Some((other, _)) = self.tensors.get(&name) {
                let reason = format!(
                    "tensor `{}` is also in {}",
                    shorten(&name),
                    self.files[*other].shown
                );
                return Err(Error::bad_file(shown, reason));
            }
            self.tensors.insert(name, (file, info));
        }
        self.files.push(File {
            shown,
            bytes,
            stamp,
        });
        Ok(())
    }

    /// Iterates over the names of all tensors, with dtype, shape and position.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, (_, info))| (name.as_str(), info))
    }

    /// Returns the bytes of all tensors together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|(_, info)| info.len as u64).sum()
    }

    /// Returns the tensors that were never requested. Some are normal: a decoder does not request those of the encoder.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.tensors
            .keys()
            .filter(|name| !asked.contains(*name))
            .cloned()
            .collect()
    }

    fn bad(&self, file: Option<usize>, tensor: &str, expected: String, found: String) -> Error {
        let file = file.map_or_else(|| self.name.clone(), |file| self.files[file].shown.clone());
        Error::BadTensor {
            file,
            tensor: tensor.into(),
            expected,
            found,
        }
    }
}

impl ModelSource {
    /// Opens the weights of the folder `component`. See [`Weights::open`].
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_weights(&self, component: &str, variant: Option<&str>) -> Result<Weights> {
        Weights::open(self, component, variant)
    }
}

impl WeightSource for Weights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned());
        let Some((file, info)) = self.tensors.get(name) else {
            if let Some(file) = self.listed.get(name) {
                return Err(Error::BadTensor {
                    file: file.clone(),
                    tensor: name.into(),
                    expected: "this tensor, as the index says".into(),
                    found: "no tensor of this name".into(),
                });
            }
            return Err(self.bad(
                None,
                name,
                format!("shape {}", quote::list(shape)),
                "no tensor of this name".into(),
            ));
        };
        if info.shape != shape {
            return Err(self.bad(
                Some(*file),
                name,
                format!("shape {}", quote::list(shape)),
                format!("shape {}", quote::list(&info.shape)),
            ));
        }
        let Some(dtype) = info.dtype.dtype() else {
            return Err(self.bad(
                Some(*file),
                name,
                "dtype F32, BF16 or F16".into(),
                format!("dtype {}", info.dtype),
            ));
        };
        let tensor = self.files[*file].bytes.tensor(info.offset, shape, dtype)?;
        if self.looks_through
            && let Some(index) = tensor.first_not_finite_blocking()?
        {
            let found = format!("NaN or infinity at element {index}");
            return Err(self.bad(Some(*file), name, "finite numbers".into(), found));
        }
        Ok(tensor)
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn contains_prefix(&self, prefix: &str) -> bool {
        self.tensors
            .range(prefix.to_owned()..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(prefix))
    }

    fn release(&self, name: &str) {
        if let Some((file, info)) = self.tensors.get(name) {
            self.files[*file].bytes.release(info.offset, info.len);
        }
    }
}

#[cfg(test)]
mod tests;
