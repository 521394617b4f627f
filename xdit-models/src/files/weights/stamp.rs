//! The size and time of a weights file when it was opened, to detect that it has changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};

/// The remembered size and time of a file.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// Reads the stamp of the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the system cannot return it.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let meta = std::fs::metadata(path).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            len: meta.len(),
            modified: meta.modified().ok(),
        })
    }

    /// Returns an error if the file has changed since it was opened.
    ///
    /// # Errors
    /// [`Error::BadFile`] if the file is missing, or has another size or time.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |what: String| {
            let reason = format!("{what} since it was loaded: load the pipeline again");
            Err(Error::bad_file(self.path.display().to_string(), reason))
        };
        match Self::of(&self.path) {
            Err(_) => bad("is gone".into()),
            Ok(now) if now.len != self.len => bad(format!(
                "had {} bytes and has {} bytes now",
                self.len, now.len
            )),
            Ok(now) if now.modified != self.modified => bad("has changed".into()),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_change_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, [1; 100]).unwrap();
        let stamp = Stamp::of(&path).unwrap();
        stamp.check().unwrap();
        let said = || stamp.check().unwrap_err().to_string();
        std::fs::write(&path, [1; 50]).unwrap();
        assert!(
            said().contains("model.safetensors: had 100 bytes and has 50"),
            "{}",
            said()
        );
        std::fs::write(&path, [2; 100]).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(9);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(later).unwrap();
        assert!(said().contains("has changed"), "{}", said());
        std::fs::remove_file(&path).unwrap();
        assert!(said().contains("is gone"), "{}", said());
    }
}
