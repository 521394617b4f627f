//! Where the files of a pipeline come from: a folder, the binary itself, or memory.

mod hints;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xdit_kernels::MappedFile;

use crate::error::{Error, Result};
use crate::files::config::{ConfigFile, MAX_CONFIG_BYTES};
use crate::files::file_bytes::FileBytes;
use crate::files::inner_path;
use crate::files::model_index::{ModelIndex, PipelineClass};
use crate::files::weights::Weights;

/// Deeper folders than this are not listed: a pipeline has two levels.
const MAX_DEPTH: usize = 4;
/// More files than this are not listed; FLUX.1-dev has 30.
const MAX_FILES: usize = 10_000;

/// The name of the pipeline that is part of this crate.
pub(crate) const DEMO: &str = "demo";

/// The components of Stable Diffusion 3 that it can draw without.
pub(crate) const OPTIONAL_T5: &[&str] = &["text_encoder_3", "tokenizer_3"];

/// The files of one pipeline, named by their path inside it with `/` between folders.
///
/// Cheap to clone; the bytes of an embedded or in-memory pipeline are shared.
///
/// # Examples
/// ```
/// use xdit_models::ModelSource;
/// let source = ModelSource::memory([("vae/config.json", b"{}".to_vec())]);
/// assert!(source.exists("vae/config.json"));
/// assert_eq!(source.list()?, ["vae/config.json"]);
/// assert!(source.read("vae/../secret", 100).is_err());
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone)]
pub struct ModelSource {
    name: String,
    files: Files,
    /// Components that are as if they were not there.
    hidden: &'static [&'static str],
}

#[derive(Clone)]
enum Files {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
    Memory(Arc<BTreeMap<String, Arc<Vec<u8>>>>),
}

impl ModelSource {
    /// The pipeline in the folder `path`. A repository's folder in the hub's cache (`models--ORG--NAME`) stands for the snapshot
    /// in it.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] when there is no such folder, or several snapshots and none of them `refs/main`.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name = path.display().to_string();
        if !path.is_dir() {
            let reason = if path.exists() {
                "is a file, not the folder of a pipeline"
            } else {
                "no such folder"
            };
            return Err(Error::ModelNotFound {
                model: name,
                reason: reason.into(),
            });
        }
        let path = hints::pipeline_folder(path)?;
        Ok(Self {
            name: path.display().to_string(),
            files: Files::Folder(path),
            hidden: &[],
        })
    }

    /// The pipeline called `name` whose files are part of the binary.
    #[must_use]
    pub fn embedded(
        name: impl Into<String>,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Self {
        Self {
            name: name.into(),
            files: Files::Embedded(files),
            hidden: &[],
        }
    }

    /// A pipeline whose files are in memory.
    pub fn memory<S: Into<String>>(files: impl IntoIterator<Item = (S, Vec<u8>)>) -> Self {
        let files = files
            .into_iter()
            .map(|(path, bytes)| (path.into(), Arc::new(bytes)))
            .collect();
        Self {
            name: "memory".into(),
            files: Files::Memory(Arc::new(files)),
            hidden: &[],
        }
    }

    /// The same pipeline without T5, as diffusers' `text_encoder_3=None, tokenizer_3=None`: where T5's embeddings would
    /// stand, the transformer reads zeros. T5's files are not read, and its memory is saved. A pipeline that has no T5
    /// stays as it is.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a pipeline that cannot draw without T5 (every one but Stable Diffusion 3), and as
    /// [`ModelIndex::read`].
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::ModelSource;
    /// let refused = ModelSource::demo().without_t5().unwrap_err();
    /// assert!(refused.to_string().starts_with("`no_t5`"), "{refused}");
    /// # }
    /// ```
    pub fn without_t5(mut self) -> Result<Self> {
        let class = ModelIndex::read(&self)?.pipeline;
        if class != PipelineClass::Sd3 {
            let allowed = format!(
                "left out: {} cannot draw without T5, {} can",
                class.name(),
                PipelineClass::Sd3.name()
            );
            return Err(Error::invalid("no_t5", "given", allowed));
        }
        self.hidden = OPTIONAL_T5;
        Ok(self)
    }

    /// Whether the component `name` is to be as if it were not there.
    pub(crate) fn hides(&self, name: &str) -> bool {
        self.hidden.contains(&name)
    }

    /// Whether the file `path` belongs to a component that is hidden.
    fn hides_file(&self, path: &str) -> bool {
        path.split('/').next().is_some_and(|name| self.hides(name))
    }

    /// The folder's path or the pipeline's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder on disk, when the pipeline lies in one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.files {
            Files::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// How messages name the file `path` of this pipeline.
    #[must_use]
    pub fn shown(&self, path: &str) -> String {
        match &self.files {
            Files::Folder(folder) => folder.join(path).display().to_string(),
            _ => format!("{}:{path}", self.name),
        }
    }

    /// Whether there is a file `path`.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        if self.hides_file(path) {
            return false;
        }
        match &self.files {
            Files::Folder(folder) => inner_path::check(path).is_ok() && folder.join(path).is_file(),
            Files::Embedded(files) => files.iter().any(|(name, _)| *name == path),
            Files::Memory(files) => files.contains_key(path),
        }
    }

    /// The paths of all files, sorted.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read, [`Error::BadFile`] when it holds more than 10,000 files.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut paths = match &self.files {
            Files::Folder(folder) => {
                let mut paths = Vec::new();
                walk(folder, "", 0, &mut paths)?;
                paths
            }
            Files::Embedded(files) => files.iter().map(|(path, _)| (*path).to_owned()).collect(),
            Files::Memory(files) => files.keys().cloned().collect(),
        };
        paths.retain(|path| !self.hides_file(path));
        paths.sort_unstable();
        Ok(paths)
    }

    /// The bytes of the file `path`, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::MissingFile`] when there is none, [`Error::BadFile`] when it is longer than `limit`, its path leaves
    /// the pipeline, or something else lies in its place (a Git LFS pointer, a web page), [`Error::Io`] when it cannot be
    /// read.
    pub fn read(&self, path: &str, limit: usize) -> Result<Cow<'_, [u8]>> {
        if self.hides_file(path) {
            return Err(self.missing(path));
        }
        let bytes = match &self.files {
            Files::Folder(_) => Cow::Owned(read_at_most(&self.file_path(path)?, limit)?),
            Files::Embedded(files) => match files.iter().find(|(name, _)| *name == path) {
                Some((_, bytes)) => Cow::Borrowed(*bytes),
                None => return Err(self.missing(path)),
            },
            Files::Memory(files) => Cow::Borrowed(
                files
                    .get(path)
                    .ok_or_else(|| self.missing(path))?
                    .as_slice(),
            ),
        };
        if let Some(reason) = hints::stand_in(&bytes) {
            return Err(Error::bad_file(self.shown(path), reason));
        }
        if bytes.len() > limit {
            return Err(Error::bad_file(
                self.shown(path),
                format!("longer than the {limit} bytes it may have"),
            ));
        }
        Ok(bytes)
    }

    /// The JSON configuration in the file `path`.
    ///
    /// # Errors
    /// As [`ModelSource::read`] and [`ConfigFile::parse`].
    pub fn config(&self, path: &str) -> Result<ConfigFile> {
        ConfigFile::parse(self.shown(path), &self.read(path, MAX_CONFIG_BYTES)?)
    }

    /// The file `path`, mapped into memory when it lies in a folder.
    pub(crate) fn open(&self, path: &str) -> Result<FileBytes> {
        if self.hides_file(path) {
            return Err(self.missing(path));
        }
        let bytes = match &self.files {
            Files::Folder(_) => FileBytes::Mapped(map(&self.file_path(path)?)?),
            Files::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == path);
                FileBytes::Static(found.ok_or_else(|| self.missing(path))?.1)
            }
            Files::Memory(files) => {
                FileBytes::Memory(files.get(path).ok_or_else(|| self.missing(path))?.clone())
            }
        };
        match hints::stand_in(&bytes.start(hints::SEEN)?) {
            Some(reason) => Err(Error::bad_file(self.shown(path), reason)),
            None => Ok(bytes),
        }
    }

    /// The weights of the folder `component`; see [`Weights::open`].
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_weights(&self, component: &str, variant: Option<&str>) -> Result<Weights> {
        Weights::open(self, component, variant)
    }

    /// Where the file `path` lies on disk; only for folders.
    fn file_path(&self, path: &str) -> Result<PathBuf> {
        let Files::Folder(folder) = &self.files else {
            return Err(self.missing(path));
        };
        if let Err(reason) = inner_path::check(path) {
            let reason = format!("this path {reason}, and may not leave the pipeline's folder");
            return Err(Error::bad_file(self.shown(path), reason));
        }
        let file = folder.join(path);
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() => Ok(file),
            // A file in a folder that may not be entered is not missing.
            Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Error::Io { path: file, source })
            }
            _ => Err(self.missing(path)),
        }
    }

    fn missing(&self, path: &str) -> Error {
        let hint = match &self.files {
            Files::Folder(folder) if inner_path::check(path).is_ok() => {
                hints::missing(folder, path)
            }
            _ => String::new(),
        };
        Error::MissingFile {
            file: self.shown(path),
            hint,
        }
    }

    /// Where the links in the folder `component` lead that lead to nothing. Empty, or begins with `; `.
    pub(crate) fn dangling_links(&self, component: &str) -> String {
        match &self.files {
            Files::Folder(folder) => hints::dangling_links(folder, component),
            _ => String::new(),
        }
    }
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.files {
            Files::Folder(_) => "folder",
            Files::Embedded(_) => "embedded",
            Files::Memory(_) => "memory",
        };
        f.debug_struct("ModelSource")
            .field("name", &self.name)
            .field("kind", &kind)
            .finish()
    }
}

/// The file, mapped; where the system has no memory for that, the size is named.
fn map(path: &Path) -> Result<MappedFile> {
    MappedFile::open(path).map_err(|error| match error {
        xdit_kernels::Error::Io { source, .. }
            if source.kind() == std::io::ErrorKind::OutOfMemory =>
        {
            Error::OutOfMemory {
                what: format!("{}: to be mapped, it", path.display()),
                bytes: std::fs::metadata(path).map_or(0, |meta| meta.len()),
            }
        }
        other => other.into(),
    })
}

fn read_at_most(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    // One byte more than allowed, so that a longer file is seen to be longer.
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(bytes)
}

fn walk(folder: &Path, prefix: &str, depth: usize, paths: &mut Vec<String>) -> Result<()> {
    let io = |source| Error::Io {
        path: folder.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let inner = format!("{prefix}{name}");
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk(&path, &format!("{inner}/"), depth + 1, paths)?;
            }
        } else if path.is_file() {
            paths.push(inner);
        }
        if paths.len() > MAX_FILES {
            return Err(Error::bad_file(
                folder.display().to_string(),
                "too many files for a pipeline",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
