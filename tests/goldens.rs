//! The files of `tests/golden`.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// A path below `tests/golden`.
pub fn path(inside: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(inside)
}

/// The content of a file below `tests/golden`, unpacked if its name ends in `.gz`.
///
/// # Panics
/// If there is none, or it is damaged.
pub fn bytes(inside: &str) -> Vec<u8> {
    let path = path(inside);
    let stored = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !inside.ends_with(".gz") {
        return stored;
    }
    let mut content = Vec::new();
    GzDecoder::new(stored.as_slice())
        .read_to_end(&mut content)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    content
}
