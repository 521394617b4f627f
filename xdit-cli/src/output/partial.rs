//! Files that appear whole or not at all: written under a temporary name in the same folder, then renamed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempPath;

use crate::report::failure::{Failure, shown};

/// The temporary files that exist now, so that a signal can remove them, and the folders that were made for files.
///
/// Its lock is held while a file or folder is made, renamed or removed, and never while anything is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partials(Arc<Mutex<Made>>);

#[derive(Debug, Default)]
struct Made {
    files: BTreeSet<PathBuf>,
    /// In the order in which they were made.
    folders: Vec<PathBuf>,
}

impl Made {
    /// Removes the folders that were made and have remained empty.
    fn remove_empty_folders(&mut self) {
        for folder in self.folders.drain(..).rev() {
            // Not empty: then there is something in it that stays.
            fs::remove_dir(folder).ok();
        }
    }
}

impl Partials {
    /// Removes every temporary file, and the folders that were made and hold nothing. No file is begun or finished while the
    /// answer is held.
    pub(crate) fn remove_all(&self) -> impl Drop + '_ {
        let mut made = self.lock();
        for path in &made.files {
            // The program is ending: a file that cannot be removed has nobody left to be told.
            fs::remove_file(path).ok();
        }
        made.remove_empty_folders();
        made
    }

    /// Makes `folder` and those above it that are missing. What remains empty of them is removed when the program ends.
    ///
    /// # Errors
    /// [`Failure::Output`] when one of them cannot be made.
    pub(crate) fn make_folder(&self, folder: &Path) -> Result<(), Failure> {
        let mut made = self.lock();
        let missing = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
        let missing: Vec<&Path> = missing.collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => made.folders.push(folder.to_owned()),
                // Another process was faster, or the path goes up again.
                Err(_) if folder.is_dir() => {}
                Err(e) => return Err(Failure::unwritable(folder, &e)),
            }
        }
        Ok(())
    }

    /// Removes the folders that were made and have remained empty: the run is over.
    pub(crate) fn remove_empty_folders(&self) {
        self.lock().remove_empty_folders();
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        // The sets are whole even if a holder panicked: each change of them is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens when the target exists already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and [`PartialFile::commit`] says that it is there.
    Keep,
}

/// A file that gets its name only by [`PartialFile::commit`]; dropped before, it leaves nothing.
#[derive(Debug)]
pub(crate) struct PartialFile {
    file: File,
    /// Its temporary name; none once it has its own.
    temporary: Option<TempPath>,
    target: PathBuf,
    partials: Partials,
}

impl PartialFile {
    /// An empty file in the folder of `target`.
    ///
    /// # Errors
    /// [`Failure::Output`] when the folder cannot be written or `target` cannot be replaced, [`Failure::LongName`] when the
    /// file system has no such long names.
    pub(crate) fn create(target: &Path, partials: &Partials) -> Result<Self, Failure> {
        let target_file = replaceable(target)?;
        let folder = folder_of(&target_file);
        if !folder.is_dir() {
            let reason = match folder.exists() {
                true => format!("{} is not a folder", shown(folder)),
                false => format!("there is no folder {}", shown(folder)),
            };
            return Err(Failure::output(target, reason));
        }
        // Between the two a signal finds no file, or waits.
        let mut made = partials.lock();
        let (file, temporary) = builder()
            .tempfile_in(folder)
            .map_err(|e| Failure::unwritable(target, &e))?
            .into_parts();
        made.files.insert(temporary.to_path_buf());
        drop(made);
        Ok(Self {
            file,
            temporary: Some(temporary),
            target: target_file,
            partials: partials.clone(),
        })
    }

    /// The file, for writing.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The name that it gets.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file its name, which is the answer; none if the name was taken and stays so ([`Existing::Keep`]).
    ///
    /// # Errors
    /// [`Failure::Output`] when the file cannot be renamed.
    pub(crate) fn commit(mut self, existing: Existing) -> Result<Option<PathBuf>, Failure> {
        let failed = |e: &io::Error| Failure::unwritable(&self.target, e);
        self.file.flush().map_err(|e| failed(&e))?;
        let Some(temporary) = self.temporary.take() else {
            return Ok(None);
        };
        let mut made = self.partials.lock();
        let name = temporary.to_path_buf();
        // A name that cannot be given takes the file with it.
        let renamed = match existing {
            Existing::Replace => temporary.persist(&self.target),
            Existing::Keep => temporary.persist_noclobber(&self.target),
        }
        .map_err(|e| e.error);
        made.files.remove(&name);
        drop(made);
        match renamed {
            Ok(()) => Ok(Some(self.target.clone())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(failed(&e)),
        }
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let mut made = self.partials.lock();
            made.files.remove(&temporary.to_path_buf());
            // The file, before a signal may look.
            drop(temporary);
        }
    }
}

/// The file that a new `target` would replace, whether it exists or not: a link is followed, so that what it points to
/// is replaced and not the link.
///
/// # Errors
/// [`Failure::Output`] when something that is not a file has this name, [`Failure::LongName`] when the file system has no such
/// long names.
pub(crate) fn replaceable(target: &Path) -> Result<PathBuf, Failure> {
    let failed = |reason: String| Failure::output(target, reason);
    let file = match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_symlink() => {
            fs::canonicalize(target).map_err(|e| failed(format!("broken link: {e}")))?
        }
        // It says so whether there is such a file or not.
        Err(e) if e.kind() == io::ErrorKind::InvalidFilename => {
            return Err(Failure::unwritable(target, &e));
        }
        _ => target.to_owned(),
    };
    match fs::metadata(&file) {
        Ok(meta) if meta.is_dir() => Err(failed("is a folder".into())),
        Ok(meta) if !meta.is_file() => Err(failed("is not a regular file".into())),
        _ => Ok(file),
    }
}

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".xdit-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file (the umask applies): tempfile's own default lets only the owner read.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.png");
        let partials = Partials::default();
        let mut partial = PartialFile::create(&target, &partials).unwrap();
        partial.file().write_all(b"whole").unwrap();
        assert!(!target.exists());
        drop(partial);
        assert_eq!(names(folder.path()), [""; 0]);

        let mut partial = PartialFile::create(&target, &partials).unwrap();
        partial.file().write_all(b"whole").unwrap();
        assert!(partial.commit(Existing::Replace).unwrap().is_some());
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn keeps_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.png");
        fs::write(&target, b"mine").unwrap();
        let partials = Partials::default();
        let partial = PartialFile::create(&target, &partials).unwrap();
        assert_eq!(partial.commit(Existing::Keep).unwrap(), None);
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        let partial = PartialFile::create(&target, &partials).unwrap();
        assert!(partial.commit(Existing::Replace).unwrap().is_some());
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn signals_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Partials::default();
        let _a = PartialFile::create(&folder.path().join("a"), &partials).unwrap();
        let _b = PartialFile::create(&folder.path().join("b"), &partials).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop(partials.remove_all());
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let cases = [
            (folder.path().to_owned(), "is a folder"),
            (file.join("a.png"), "is not a folder"),
            (folder.path().join("no/a.png"), "there is no folder"),
            (PathBuf::from("/dev/null"), "not a regular file"),
        ];
        for (path, reason) in cases {
            let failure = PartialFile::create(&path, &Partials::default()).unwrap_err();
            let message = failure.to_string();
            assert!(message.contains(reason), "{message}");
            assert!(message.contains(&path.display().to_string()), "{message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_others_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (
            folder.path().join("real.png"),
            folder.path().join("link.png"),
        );
        fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut partial = PartialFile::create(&link, &Partials::default()).unwrap();
        partial.file().write_all(b"new").unwrap();
        partial.commit(Existing::Replace).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&real), mode(&plain));
    }
}
