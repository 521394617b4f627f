//! The safetensors files of a component, mapped into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use xdit_kernels::Tensor;

use super::WeightSource;
use super::header::{Header, TensorInfo};
use super::index::WeightFiles;
use crate::error::{Error, Result, shorten};
use crate::file_bytes::FileBytes;
use crate::source::ModelSource;

/// The weights of one component: all tensors of its safetensors files.
///
/// Opening reads the headers only. Tensors share the mapped files; a tensor is looked through for NaN and infinity when
/// it is asked for.
#[derive(Debug)]
pub struct Weights {
    /// How messages name the weights as a whole: the one file, or the index.
    name: String,
    files: Vec<File>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    asked: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
struct File {
    shown: String,
    bytes: FileBytes,
}

impl Weights {
    /// The weights of the folder `component` of `source`; of this `variant` (`fp16`, say) if one is asked for.
    ///
    /// # Errors
    /// [`Error::MissingFile`] when there are none, or a shard is missing; [`Error::BadFile`] and [`Error::BadTensor`]
    /// when an index or header is corrupt, a file is truncated, or shards hold a tensor twice or not at all.
    pub fn open(source: &ModelSource, component: &str, variant: Option<&str>) -> Result<Self> {
        let found = WeightFiles::find(source, component, variant)?;
        let name = source.shown(found.index.as_ref().unwrap_or(&found.files[0]));
        let mut weights = Self {
            name,
            files: Vec::new(),
            tensors: BTreeMap::new(),
            asked: Mutex::default(),
        };
        for path in &found.files {
            weights.add(source.shown(path), source.open(path)?)?;
        }
        for (tensor, path) in &found.map {
            if !weights.tensors.contains_key(tensor) {
                return Err(Error::BadTensor {
                    file: source.shown(path),
                    tensor: shorten(tensor),
                    expected: "this tensor, as the index says".into(),
                    found: "no tensor of this name".into(),
                });
            }
        }
        Ok(weights)
    }

    /// The tensors of one safetensors file.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(source: &ModelSource, path: &str) -> Result<Self> {
        let shown = source.shown(path);
        let mut weights = Self {
            name: shown.clone(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            asked: Mutex::default(),
        };
        weights.add(shown, source.open(path)?)?;
        Ok(weights)
    }

    fn add(&mut self, shown: String, bytes: FileBytes) -> Result<()> {
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
        self.files.push(File { shown, bytes });
        Ok(())
    }

    /// Every tensor's name with its dtype, shape and place.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, (_, info))| (name.as_str(), info))
    }

    /// Bytes of all tensors together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|(_, info)| info.len as u64).sum()
    }

    /// The tensors that nobody has asked for yet. Some are normal: a decoder does not ask for the encoder's.
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

impl WeightSource for Weights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned());
        let Some((file, info)) = self.tensors.get(name) else {
            return Err(self.bad(
                None,
                name,
                format!("shape {shape:?}"),
                "no tensor of this name".into(),
            ));
        };
        if info.shape != shape {
            return Err(self.bad(
                Some(*file),
                name,
                format!("shape {shape:?}"),
                format!("shape {:?}", info.shape),
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
        if let Some(index) = tensor.first_not_finite() {
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
