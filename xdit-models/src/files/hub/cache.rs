//! huggingface_hub's cache: `models--ORG--NAME/{refs/REVISION, blobs/ETAG, snapshots/COMMIT/PATH → blobs}`.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::client::RemoteFile;
use super::lock::{self, Trace, Waited};
use super::options::HubOptions;
use crate::error::{Error, Result, shorten};
use crate::files::inner_path::InnerPath;
use crate::files::snapshots::{self, Found, Wanted};
use crate::files::source::ModelSource;

/// The longest name of a content, in bytes. With `.part` it must be a valid name of a file.
const MAX_BLOB: usize = 200;

/// The cache of one repository.
pub(super) struct RepoCache {
    folder: PathBuf,
}

/// The checked name of a commit.
#[derive(Clone, Debug)]
pub(super) struct Commit(String);

impl Commit {
    /// `name`, if it is one: hexadecimal digits.
    pub(super) fn new(name: &str) -> Option<Self> {
        snapshots::is_commit(name).then(|| Self(name.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The checked name of the content of one file.
#[derive(Clone, Debug)]
pub(super) struct Blob(String);

impl Blob {
    /// Checks the ETag `name`: it must be a valid name of a file on every system, and differ from the temporary names of this
    /// code.
    pub(super) fn new(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let on_the_way = [".part", ".incomplete", ".lock"];
        let fits = (1..=MAX_BLOB).contains(&name.len())
            && name.bytes().all(plain)
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !on_the_way.iter().any(|end| name.ends_with(end));
        fits.then(|| Self(name.to_owned()))
    }
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Self {
            folder: cache_dir.join(format!("models--{}", id.replace('/', "--"))),
        }
    }

    /// Returns the cached files of `revision`.
    pub(super) fn find(&self, revision: &InnerPath, wanted: Wanted<'_>) -> Result<Found> {
        snapshots::find(&self.folder, revision.as_str(), wanted)
    }

    /// Returns the folder of the files of `commit`.
    pub(super) fn source(&self, commit: &Commit) -> Result<ModelSource> {
        ModelSource::folder(snapshots::copy(&self.folder, &commit.0))
    }

    /// Returns whether the file is in the cache. A dangling or circular link does not count.
    pub(super) fn has(&self, commit: &Commit, file: &InnerPath) -> bool {
        self.path(commit, file).is_file()
    }

    /// Returns the name of the content of `remote`.
    pub(super) fn blob(&self, remote: &RemoteFile) -> Result<Blob> {
        Blob::new(&remote.etag).ok_or_else(|| Error::Hub {
            what: self.folder.display().to_string(),
            reason: format!("odd etag `{}`", shorten(&remote.etag)),
        })
    }

    /// Returns the path of the content.
    pub(super) fn blob_path(&self, blob: &Blob) -> PathBuf {
        self.folder.join("blobs").join(&blob.0)
    }

    /// Returns the path of the unfinished content, and creates its folder.
    pub(super) fn part_path(&self, blob: &Blob) -> Result<PathBuf> {
        let path = self.folder.join("blobs").join(format!("{}.part", blob.0));
        make_parent(&path)?;
        Ok(path)
    }

    /// Returns whether the content exists with the right length.
    pub(super) fn holds(&self, blob: &Blob, size: u64) -> bool {
        std::fs::metadata(self.blob_path(blob))
            .is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Locks the content `blob` of `file`, so that no other process writes it, not even huggingface_hub. The lock ends when the
    /// result is dropped. Waits for another process that holds the lock, as long as it makes progress within `patience`.
    pub(super) fn lock(&self, blob: &Blob, file: &InnerPath, options: &HubOptions) -> Result<File> {
        let patience = options.lock_timeout;
        let name = self.folder.file_name().unwrap_or_default();
        let path = self.folder.with_file_name(".locks").join(name);
        let path = path.join(format!("{}.lock", blob.0));
        make_parent(&path)?;
        let blobs = self.folder.join("blobs");
        let trace = || Trace::of(&blobs, &blob.0);
        let waited =
            lock::lock(&path, file.as_str(), options, &trace).map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })?;
        match waited {
            Waited::Held(file) => Ok(file),
            Waited::Cancelled => Err(Error::Cancelled),
            Waited::InVain(holder) => Err(Error::Hub {
                what: file.as_str().into(),
                reason: format!(
                    "{holder} is to download it, and has brought nothing for {} s; end it and run this again (its lock is {})",
                    patience.as_secs(),
                    path.display()
                ),
            }),
        }
    }

    /// Links the file into the snapshot, after its content is in the cache. Replaces a dangling or circular link.
    pub(super) fn link_blob(
        &self,
        commit: &Commit,
        file: &InnerPath,
        blob: &Blob,
        size: u64,
    ) -> Result<bool> {
        if !self.holds(blob, size) {
            return Ok(false);
        }
        if self.has(commit, file) {
            return Ok(true);
        }
        let path = self.path(commit, file);
        make_parent(&path)?;
        // From snapshots/COMMIT/… back to the folder of the repository.
        let up: PathBuf = std::iter::repeat_n("..", 2 + file.depth()).collect();
        let target = up.join("blobs").join(&blob.0);
        let made = match link(&target, &self.blob_path(blob), &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Another process may have created the link. Otherwise the existing link is dangling.
                match path.is_file() {
                    true => Ok(()),
                    false => std::fs::remove_file(&path)
                        .and_then(|()| link(&target, &self.blob_path(blob), &path)),
                }
            }
            made => made,
        };
        made.map(|()| true)
            .map_err(|source| Error::Io { path, source })
    }

    /// Returns whether `revision` is a ref to a commit.
    pub(super) fn has_ref(&self, revision: &InnerPath) -> bool {
        self.ref_path(revision).is_file()
    }

    /// Points `revision` to `commit`. The write is atomic, so no process reads half a name.
    pub(super) fn write_ref(&self, revision: &InnerPath, commit: &Commit) -> Result<()> {
        let path = self.ref_path(revision);
        // A commit needs no ref. A complete cache may be read-only.
        if revision.as_str() == commit.0
            || std::fs::read_to_string(&path).is_ok_and(|now| now == commit.0)
        {
            return Ok(());
        }
        make_parent(&path)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let written =
            std::fs::write(&temporary, &commit.0).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            Error::Io { path, source }
        })
    }

    fn ref_path(&self, revision: &InnerPath) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    fn path(&self, commit: &Commit, file: &InnerPath) -> PathBuf {
        snapshots::copy(&self.folder, &commit.0).join(file)
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(|source| Error::Io {
        path: parent.to_owned(),
        source,
    })
}

#[cfg(unix)]
fn link(relative: &Path, _blob: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

#[cfg(not(unix))]
fn link(_relative: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_contents_and_commits() {
        for good in ["0123456789abcdef", "vae_config.json-2", "abc-12", "x.y"] {
            assert!(Blob::new(good).is_some(), "{good}");
        }
        let long = "a".repeat(201);
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "../a",
            "a\\b",
            "C:a",
            "a b",
            "a\n",
            "ü",
            "a.part",
            "a.lock",
            "a.incomplete",
            "a.",
            "*",
            &long,
        ] {
            assert!(Blob::new(bad).is_none(), "{bad:?}");
        }
        let long = "a".repeat(65);
        assert!(Commit::new("0123abcdEF").is_some());
        for bad in ["", "..", "main", "ab/cd", "ab\n", &long] {
            assert!(Commit::new(bad).is_none(), "{bad:?}");
        }
    }
}
