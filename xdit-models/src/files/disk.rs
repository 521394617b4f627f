//! Reads files and folders on disk, with limits on their sizes.

use std::io::Read;
use std::path::Path;

use xdit_kernels::MappedFile;

use crate::error::{Error, Result};

/// Deeper folders are not listed. A pipeline has two levels.
const MAX_DEPTH: usize = 4;
/// More files are not listed. FLUX.1-dev has 30.
pub(super) const MAX_FILES: usize = 10_000;

/// Maps the file into memory. If the system refuses, the error names the size.
pub(super) fn map(path: &Path) -> Result<MappedFile> {
    MappedFile::open(path).map_err(|error| match error {
        xdit_kernels::Error::Io { source, .. }
            if source.kind() == std::io::ErrorKind::OutOfMemory =>
        {
            Error::OutOfMemory {
                what: format!("{}: to be mapped, it", path.display()),
                bytes: std::fs::metadata(path).map_or(0, |meta| meta.len()),
                available: None,
                cure: String::new(),
            }
        }
        other => other.into(),
    })
}

/// Returns the bytes of a file, at most one more than `limit`.
pub(super) fn read_at_most(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    // One byte more than allowed, so that a longer file is detected.
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(bytes)
}

/// Adds the files in `folder` to `paths`, each with `prefix` before its path inside.
pub(super) fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    paths: &mut Vec<String>,
) -> Result<()> {
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
