//! Files that are never partial: they are written under a temporary name in the same folder and then renamed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempPath;

use crate::report::failure::{Failure, shown};

/// The existing temporary files, so that a signal can remove them, and the folders that were created for files.
///
/// The lock is held while a file or folder is created, renamed or removed, and never during a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partials(Arc<Mutex<Made>>);

#[derive(Debug, Default)]
struct Made {
    files: BTreeSet<PathBuf>,
    /// In the order of their creation.
    folders: Vec<PathBuf>,
}

impl Made {
    /// Removes created folders that are still empty.
    fn remove_empty_folders(&mut self) {
        for folder in self.folders.drain(..).rev() {
            // A folder that is not empty stays.
            fs::remove_dir(folder).ok();
        }
    }
}

impl Partials {
    /// Removes every temporary file, and created folders that are empty. No file is created or finished while the returned
    /// guard is held.
    pub(crate) fn remove_all(&self) -> impl Drop + '_ {
        let mut made = self.lock();
        for path in &made.files {
            // The program is ending, so an error cannot be reported.
            fs::remove_file(path).ok();
        }
        made.remove_empty_folders();
        made
    }

    /// Creates `folder` and its missing parents. Those that stay empty are removed when the program ends.
    ///
    /// # Errors
    /// [`Failure::Output`] if one of them cannot be created.
    pub(crate) fn make_folder(&self, folder: &Path) -> Result<(), Failure> {
        let mut made = self.lock();
        let missing = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
        let missing: Vec<&Path> = missing.collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => made.folders.push(folder.to_owned()),
                // Another process was faster, or the path contains `..`.
                Err(_) if folder.is_dir() => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Failure::output(folder, "is not a folder"));
                }
                Err(e) => return Err(Failure::unwritable(folder, &e)),
            }
        }
        Ok(())
    }

    /// Removes created folders that are still empty, at the end of the run.
    pub(crate) fn remove_empty_folders(&self) {
        self.lock().remove_empty_folders();
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        // The sets are valid even if a holder panicked, because each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do if the target exists already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Existing {
    /// Replace it.
    Replace,
    /// Keep it. [`PartialFile::commit`] then returns `None`.
    Keep,
}

/// A file that gets its name with [`PartialFile::commit`]. If it is dropped before, nothing remains.
#[derive(Debug)]
pub(crate) struct PartialFile {
    file: File,
    /// Its temporary name, or `None` after the rename.
    temporary: Option<TempPath>,
    target: PathBuf,
    partials: Partials,
}

impl PartialFile {
    /// Creates an empty file in the folder of `target`.
    ///
    /// # Errors
    /// [`Failure::Output`] if the folder cannot be written or `target` cannot be replaced, [`Failure::LongName`] if the name is
    /// too long for the file system.
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

    /// Returns the file, for writing.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Returns the final name.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file its name and returns it. Returns `None` if the name exists and is kept ([`Existing::Keep`]).
    ///
    /// # Errors
    /// [`Failure::Output`] if the file cannot be renamed.
    pub(crate) fn commit(mut self, existing: Existing) -> Result<Option<PathBuf>, Failure> {
        let failed = |e: &io::Error| Failure::unwritable(&self.target, e);
        self.file.flush().map_err(|e| failed(&e))?;
        let Some(temporary) = self.temporary.take() else {
            return Ok(None);
        };
        let mut made = self.partials.lock();
        let name = temporary.to_path_buf();
        // If the rename fails, the file is removed.
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

/// Returns the folder of `path`.
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
