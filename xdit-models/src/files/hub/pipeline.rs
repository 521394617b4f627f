//! Downloads one pipeline of the hub: chooses the required files of its repository and copies them to the cache.

use super::cache::RepoCache;
use super::choose;
use super::download::{DownloadFailure, Hub, Listing};
use super::options::HubWeights;
use super::progress::{HubProgress, Snapshot};
use crate::error::{Error, Result};
use crate::files::config::MODEL_INDEX;
use crate::files::inner_path::InnerPath;
use crate::files::snapshots::{Found, Wanted};
use crate::files::source::ModelSource;

impl Hub<'_> {
    /// Downloads the `wanted` files to the cache, and moves the cache's ref when they are complete. Checks every name from the
    /// hub before it writes anything.
    pub(super) fn download(
        &self,
        (wanted, weights): (Wanted<'_>, HubWeights),
        cached: &RepoCache,
        check: &mut dyn FnMut(&ModelSource) -> Result<()>,
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<Snapshot, DownloadFailure> {
        let Listing { commit, files } = self.listing()?;
        let Some(index_file) = files.iter().find(|file| file.as_str() == MODEL_INDEX) else {
            return Err(DownloadFailure::Refused(Error::MissingFile {
                file: format!("{}/{MODEL_INDEX}", self.page),
                hint: "; the repository is not a diffusers pipeline".into(),
            }));
        };
        let index = self.index(index_file, &commit, cached)?;
        let needed = choose::needed(&files, &index.config, wanted)
            .map_err(|reason| self.odd(&format!("{MODEL_INDEX}: {reason}")))?;
        self.keep(index_file, &commit, cached, index)?;
        let is_weights = |file: &&InnerPath| file.as_str().contains(".safetensors");
        let (large, small): (Vec<_>, Vec<_>) = needed.into_iter().partition(is_weights);
        let total = small.len()
            + match weights {
                HubWeights::Whole => large.len(),
                HubWeights::Headers | HubWeights::None => 0,
            };
        for (done, file) in small.iter().enumerate() {
            let mut report = |arrived, bytes| {
                progress(HubProgress {
                    file: file.as_str(),
                    done: arrived,
                    total: bytes,
                    files_done: done,
                    files_total: total,
                    bytes_done: 0,
                    bytes_total: 0,
                });
            };
            self.fetch(file, &commit, cached, &mut report)?;
        }
        check(&cached.source(&commit)?)?;
        let source = match weights {
            HubWeights::None => cached.source(&commit)?,
            HubWeights::Headers => self.with_headers(&commit, &large, cached)?,
            HubWeights::Whole => {
                let files = [small.len(), total];
                self.fetch_all(&large, &commit, cached, files, progress)?;
                cached.source(&commit)?
            }
        };
        // Some files of a new commit must not take the ref away from an older, complete commit.
        let whole = large.iter().all(|file| cached.has(&commit, file));
        let costs_nothing = wanted.without.is_empty() || {
            let all = Wanted {
                without: &[],
                ..wanted
            };
            !matches!(cached.find(self.revision, all)?, Found::Whole { .. })
        };
        if ((whole && costs_nothing) || !cached.has_ref(self.revision))
            && let Err(error) = cached.write_ref(self.revision, &commit)
        {
            tracing::warn!("{error}; offline, {} is not found", self.model());
        }
        Ok(Snapshot {
            source,
            commit: commit.as_str().to_owned(),
        })
    }
}
