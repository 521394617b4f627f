//! What a caller sees of a download: how far it is, and what it brought.

use crate::files::source::ModelSource;

/// How far a download is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HubProgress<'a> {
    /// The file's path in the repository.
    pub file: &'a str,
    /// Bytes of it that have arrived.
    pub done: u64,
    /// Its bytes.
    pub total: u64,
    /// How many files are complete.
    pub files_done: usize,
    /// How many files are needed.
    pub files_total: usize,
}

/// A pipeline in the cache.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its files.
    pub source: ModelSource,
    /// The commit they are from.
    pub commit: String,
}
