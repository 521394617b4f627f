//! huggingface_hub's cache: `models--ORG--NAME/{refs/REVISION, blobs/ETAG, snapshots/COMMIT/PATH → blobs}`.

use std::fs::{File, TryLockError};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::Snapshot;
use crate::error::{Error, Result, shorten};
use crate::model_index::MODEL_INDEX;
use crate::source::ModelSource;

/// How often a lock is tried that another process holds.
const LOCK_TRIES: usize = 10;
/// The pause between.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

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

    /// Where the content `etag` lies, and where it is put together before.
    pub(super) fn blob(&self, etag: &str) -> Result<(PathBuf, PathBuf)> {
        if !is_one_name(etag) {
            return Err(Error::Hub {
                what: self.folder.display().to_string(),
                reason: format!("odd etag `{}`", shorten(etag)),
            });
        }
        let folder = self.folder.join("blobs");
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
            path: folder.clone(),
            source,
        })?;
        let part = folder.join(format!("{etag}.part"));
        Ok((folder.join(etag), part))
    }

    /// Keeps every other process, huggingface_hub's too, from writing the content `etag` until the file is dropped.
    pub(super) fn lock(&self, etag: &str) -> Result<File> {
        let name = self.folder.file_name().unwrap_or_default();
        let path = self.folder.with_file_name(".locks").join(name);
        let path = path.join(format!("{etag}.lock"));
        let io = |source| Error::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(io)?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                // Some shared disks know no locks; huggingface_hub goes on without one there as well.
                Err(TryLockError::Error(_)) => return Ok(file),
            }
        }
        Err(Error::Hub {
            what: path.display().to_string(),
            reason: "another process is downloading this file".into(),
        })
    }

    /// Puts the file into the snapshot when its content is in the cache already, from another commit.
    pub(super) fn link_blob(
        &self,
        commit: &str,
        file: &str,
        etag: &str,
        size: u64,
    ) -> Result<bool> {
        let (blob, _) = self.blob(etag)?;
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
        // A commit needs no ref, and a cache that is complete may be read-only.
        if revision == commit || std::fs::read_to_string(&path).is_ok_and(|now| now == commit) {
            return Ok(());
        }
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
