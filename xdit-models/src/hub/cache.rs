//! huggingface_hub's cache: `models--ORG--NAME/{refs/REVISION, blobs/ETAG, snapshots/COMMIT/PATH → blobs}`.

use std::path::{Component, Path, PathBuf};

use super::Snapshot;
use crate::error::{Error, Result, shorten};
use crate::model_index::MODEL_INDEX;
use crate::source::ModelSource;

/// The cache of one repository.
pub(super) struct RepoCache {
    folder: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Self {
            folder: cache_dir.join(format!("models--{}", id.replace('/', "--"))),
        }
    }

    /// The pipeline at `revision`, when its index is in the cache.
    pub(super) fn snapshot(&self, revision: &str) -> Result<Option<Snapshot>> {
        let named = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        // A commit has no ref of its own.
        let commit = named.as_deref().map_or(revision, str::trim);
        if !is_one_name(commit) || !self.has(commit, MODEL_INDEX) {
            return Ok(None);
        }
        Ok(Some(Snapshot {
            source: self.source(commit)?,
            commit: commit.to_owned(),
        }))
    }

    /// The files of `commit`.
    pub(super) fn source(&self, commit: &str) -> Result<ModelSource> {
        ModelSource::folder(self.path(commit, ""))
    }

    /// Whether the file is in the cache.
    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.path(commit, file).is_file()
    }

    /// How many bytes the file has.
    pub(super) fn len(&self, commit: &str, file: &str) -> Option<u64> {
        std::fs::metadata(self.path(commit, file))
            .ok()
            .map(|metadata| metadata.len())
    }

    /// Takes the file out of the snapshot, and its content out of the cache.
    pub(super) fn remove(&self, commit: &str, file: &str) {
        let path = self.path(commit, file);
        // Nothing is lost when this fails: the next run sees the wrong length again.
        let _ = std::fs::canonicalize(&path).and_then(std::fs::remove_file);
        let _ = std::fs::remove_file(path);
    }

    /// Puts the file into the snapshot when its content is in the cache already, from another commit.
    pub(super) fn link_blob(
        &self,
        commit: &str,
        file: &str,
        etag: &str,
        size: u64,
    ) -> Result<bool> {
        if !is_one_name(etag) {
            return Err(Error::Hub {
                what: file.into(),
                reason: format!("odd etag `{}`", shorten(etag)),
            });
        }
        let blob = self.folder.join("blobs").join(etag);
        if std::fs::metadata(&blob).ok().map(|metadata| metadata.len()) != Some(size) {
            return Ok(false);
        }
        let path = self.path(commit, file);
        let io = |source| Error::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        // From snapshots/COMMIT/… back to the repository's folder.
        let up: PathBuf = std::iter::repeat_n("..", 2 + file.matches('/').count()).collect();
        match link(&up.join("blobs").join(etag), &blob, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(io(error)),
            _ => Ok(true),
        }
    }

    /// Notes that `revision` is `commit` now.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        let io = |source| Error::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        std::fs::write(&path, commit).map_err(io)
    }

    fn path(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }
}

#[cfg(unix)]
fn link(relative: &Path, _blob: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

#[cfg(not(unix))]
fn link(_relative: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, path)
}

/// Whether `name` is the name of one file.
fn is_one_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}
