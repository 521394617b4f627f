//! The progress and the result of a download.

use crate::files::source::ModelSource;

/// The progress of a download.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HubProgress<'a> {
    /// The file's path in the repository.
    pub file: &'a str,
    /// The number of its received bytes.
    pub done: u64,
    /// The number of its bytes.
    pub total: u64,
    /// The number of complete files.
    pub files_done: usize,
    /// The number of required files.
    pub files_total: usize,
    /// Bytes of the weights that have arrived, of those that were lacking when this began; 0 while configurations arrive.
    pub bytes_done: u64,
    /// Bytes of all weights that were lacking.
    pub bytes_total: u64,
}

/// A pipeline in the cache.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its files.
    pub source: ModelSource,
    /// The commit of the files.
    pub commit: String,
}
