//! The source of a pipeline's files: a folder, the binary, or memory. Functions that depend on the contents of files (`folder`,
//! `without_t5`, `open_weights`) are in other modules.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::config::{ConfigFile, MAX_CONFIG_BYTES};
use crate::files::disk::{map, read_at_most, walk};
use crate::files::file_bytes::{FileBytes, FileStart};
use crate::files::hints;
use crate::files::inner_path;
use crate::quote;

/// The name of the pipeline that is part of this crate.
pub(crate) const DEMO: &str = "demo";

/// The optional components of Stable Diffusion 3.
pub(crate) const OPTIONAL_T5: &[&str] = &["text_encoder_3", "tokenizer_3"];

/// The files of one pipeline, named by their paths inside it, with `/` between folders.
///
/// A clone is cheap. It shares the bytes of an embedded or in-memory pipeline.
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
    files: SourceFiles,
    /// Hidden components, which are treated as missing.
    hidden: &'static [&'static str],
    /// Files that are not there, of which only the start is known.
    starts: Arc<BTreeMap<String, Arc<FileStart>>>,
}

#[derive(Clone)]
enum SourceFiles {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
    Memory(Arc<BTreeMap<String, Arc<Vec<u8>>>>),
}

impl ModelSource {
    /// Creates a source from the folder `path`, without a check. [`ModelSource::folder`] checks it.
    pub(super) fn in_folder(path: PathBuf) -> Self {
        Self {
            name: path.display().to_string(),
            files: SourceFiles::Folder(path),
            hidden: &[],
            starts: Arc::default(),
        }
    }

    /// The same pipeline, of whose weights some are elsewhere: what is known of these is the start of each.
    #[cfg(feature = "hub")]
    pub(super) fn with_starts(mut self, starts: BTreeMap<String, FileStart>) -> Self {
        let shared = starts
            .into_iter()
            .map(|(path, start)| (path, Arc::new(start)));
        self.starts = Arc::new(shared.collect());
        self
    }

    /// Returns the same pipeline without these components.
    pub(super) fn hiding(mut self, components: &'static [&'static str]) -> Self {
        self.hidden = components;
        self
    }

    /// Creates a source from the files of the pipeline `name` in the binary.
    #[must_use]
    pub fn embedded(
        name: impl Into<String>,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Self {
        Self {
            name: name.into(),
            files: SourceFiles::Embedded(files),
            hidden: &[],
            starts: Arc::default(),
        }
    }

    /// Creates a source from files in memory.
    pub fn memory<S: Into<String>>(files: impl IntoIterator<Item = (S, Vec<u8>)>) -> Self {
        let files = files
            .into_iter()
            .map(|(path, bytes)| (path.into(), Arc::new(bytes)))
            .collect();
        Self {
            name: "memory".into(),
            files: SourceFiles::Memory(Arc::new(files)),
            hidden: &[],
            starts: Arc::default(),
        }
    }

    /// Returns whether the component `name` is hidden.
    pub(crate) fn hides(&self, name: &str) -> bool {
        self.hidden.contains(&name)
    }

    /// Returns whether the file `path` belongs to a hidden component.
    fn hides_file(&self, path: &str) -> bool {
        path.split('/').next().is_some_and(|name| self.hides(name))
    }

    /// Whether this is the pipeline that is part of this crate.
    pub(crate) fn is_demo(&self) -> bool {
        self.name == DEMO && self.path().is_none()
    }

    /// Returns the path of the folder or the name of the pipeline.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder on disk, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.files {
            SourceFiles::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// Returns the name of the file `path` of this pipeline in messages.
    #[must_use]
    pub fn shown(&self, path: &str) -> String {
        match &self.files {
            SourceFiles::Folder(folder) => folder.join(path).display().to_string(),
            _ => format!("{}:{path}", self.name),
        }
    }

    /// Returns whether the file `path` exists.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        if self.hides_file(path) {
            return false;
        }
        if self.starts.contains_key(path) {
            return true;
        }
        match &self.files {
            SourceFiles::Folder(folder) => {
                inner_path::check(path).is_ok() && folder.join(path).is_file()
            }
            SourceFiles::Embedded(files) => files.iter().any(|(name, _)| *name == path),
            SourceFiles::Memory(files) => files.contains_key(path),
        }
    }

    /// Whether the file `path` is one of which only the start is known.
    pub(crate) fn is_elsewhere(&self, path: &str) -> bool {
        self.starts.contains_key(path)
    }

    /// Returns the sorted paths of all files.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read, [`Error::BadFile`] if there are more than 10,000 files.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut paths = match &self.files {
            SourceFiles::Folder(folder) => {
                let mut paths = Vec::new();
                walk(folder, "", 0, &mut paths)?;
                paths
            }
            SourceFiles::Embedded(files) => {
                files.iter().map(|(path, _)| (*path).to_owned()).collect()
            }
            SourceFiles::Memory(files) => files.keys().cloned().collect(),
        };
        paths.extend(self.starts.keys().cloned());
        paths.retain(|path| !self.hides_file(path));
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    /// Reads the file `path`, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the file does not exist, [`Error::BadFile`] if it is longer than `limit`, its path leaves the
    /// pipeline, or it is something else (a Git LFS pointer, a web page), [`Error::Io`] if it cannot be read.
    pub fn read(&self, path: &str, limit: usize) -> Result<Cow<'_, [u8]>> {
        if self.hides_file(path) {
            return Err(self.missing(path));
        }
        let bytes = match &self.files {
            SourceFiles::Folder(_) => Cow::Owned(read_at_most(&self.file_path(path)?, limit)?),
            SourceFiles::Embedded(files) => match files.iter().find(|(name, _)| *name == path) {
                Some((_, bytes)) => Cow::Borrowed(*bytes),
                None => return Err(self.missing(path)),
            },
            SourceFiles::Memory(files) => Cow::Borrowed(
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
                format!(
                    "larger than {}, the most that it may have",
                    quote::bytes(limit as u64)
                ),
            ));
        }
        Ok(bytes)
    }

    /// Reads the JSON configuration in the file `path`.
    ///
    /// # Errors
    /// As [`ModelSource::read`] and [`ConfigFile::parse`].
    pub fn config(&self, path: &str) -> Result<ConfigFile> {
        ConfigFile::parse(self.shown(path), &self.read(path, MAX_CONFIG_BYTES)?)
    }

    /// Opens the file `path`. Maps it into memory if it is on disk.
    pub(crate) fn open(&self, path: &str) -> Result<FileBytes> {
        if self.hides_file(path) {
            return Err(self.missing(path));
        }
        if let Some(start) = self.starts.get(path) {
            return Ok(FileBytes::Start(start.clone()));
        }
        let bytes = match &self.files {
            SourceFiles::Folder(_) => FileBytes::Mapped(map(&self.file_path(path)?)?),
            SourceFiles::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == path);
                FileBytes::Static(found.ok_or_else(|| self.missing(path))?.1)
            }
            SourceFiles::Memory(files) => {
                FileBytes::Memory(files.get(path).ok_or_else(|| self.missing(path))?.clone())
            }
        };
        match hints::stand_in(&bytes.start(hints::SEEN)?) {
            Some(reason) => Err(Error::bad_file(self.shown(path), reason)),
            None => Ok(bytes),
        }
    }

    /// Returns the path of the file on disk, only for folders.
    fn file_path(&self, path: &str) -> Result<PathBuf> {
        let SourceFiles::Folder(folder) = &self.files else {
            return Err(self.missing(path));
        };
        if let Err(reason) = inner_path::check(path) {
            let reason = format!("this path {reason}, and may not leave the pipeline's folder");
            return Err(Error::bad_file(self.shown(path), reason));
        }
        let file = folder.join(path);
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() => Ok(file),
            // A file in a folder without permission is not missing.
            Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Error::Io { path: file, source })
            }
            _ => Err(self.missing(path)),
        }
    }

    fn missing(&self, path: &str) -> Error {
        let hint = match &self.files {
            SourceFiles::Folder(folder) if inner_path::check(path).is_ok() => {
                hints::missing(folder, path)
            }
            _ => String::new(),
        };
        Error::MissingFile {
            file: self.shown(path),
            hint,
        }
    }

    /// Describes the dangling links in the folder `component`. The text is empty or begins with `; `.
    pub(crate) fn dangling_links(&self, component: &str) -> String {
        match &self.files {
            SourceFiles::Folder(folder) => hints::dangling_links(folder, component),
            _ => String::new(),
        }
    }
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.files {
            SourceFiles::Folder(_) => "folder",
            SourceFiles::Embedded(_) => "embedded",
            SourceFiles::Memory(_) => "memory",
        };
        f.debug_struct("ModelSource")
            .field("name", &self.name)
            .field("kind", &kind)
            .finish()
    }
}

#[cfg(test)]
mod tests;
