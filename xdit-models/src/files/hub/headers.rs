//! A pipeline of the hub without its weights: of each of their files only the header is read, by a range of its bytes.

use std::collections::BTreeMap;

use super::cache::{Commit, RepoCache};
use super::download::{DownloadFailure, Hub};
use crate::files::file_bytes::FileStart;
use crate::files::inner_path::InnerPath;
use crate::files::source::ModelSource;
use crate::files::weights::Header;

/// Bytes of the headers of one pipeline that are kept in memory: a hub may claim 16 MiB for each of a thousand files.
const MOST_BYTES: usize = 256 << 20;

impl Hub<'_> {
    /// The files of `commit` in the cache, and the headers of those of `weights` that it lacks. Indexes of shards are brought
    /// whole.
    pub(super) fn with_headers(
        &self,
        commit: &Commit,
        weights: &[&InnerPath],
        cached: &RepoCache,
    ) -> Result<ModelSource, DownloadFailure> {
        let (mut starts, mut held) = (BTreeMap::new(), 0);
        for file in weights {
            if cached.has(commit, file) {
                continue;
            }
            if file.as_str().ends_with(".json") {
                self.fetch(file, commit, cached, &mut |_, _| {})?;
                continue;
            }
            let wanted = |bytes: &[u8]| Header::byte_len(bytes.get(..8).unwrap_or(bytes));
            let (bytes, size) = self.start(file, commit, wanted)?;
            held += bytes.len();
            if held > MOST_BYTES {
                let most = MOST_BYTES >> 20;
                return Err(self.odd(&format!("more than {most} MiB of headers")));
            }
            let byte_len = usize::try_from(size).unwrap_or(usize::MAX);
            starts.insert(file.as_str().to_owned(), FileStart { bytes, byte_len });
        }
        Ok(cached.source(commit)?.with_starts(starts))
    }
}
