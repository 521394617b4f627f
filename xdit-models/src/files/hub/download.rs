//! Downloads one repository of the hub: finds the commit and its files, and copies the required files to the cache.

use serde::Deserialize;

use super::address::{Endpoint, encoded, encoded_path};
use super::cache::{Commit, RepoCache};
use super::choose;
use super::client::{Client, Refusal, RemoteFile};
use super::options::HubOptions;
use super::part::{is_sha256, sha256};
use super::progress::{HubProgress, Snapshot};
use crate::error::{Error, Result, shorten};
use crate::files::config::MODEL_INDEX;
use crate::files::config::{ConfigFile, MAX_CONFIG_BYTES};
use crate::files::inner_path::InnerPath;
use crate::files::snapshots::{Found, Wanted};
use crate::files::source::ModelSource;

/// The longest list of a repository's files, in bytes. An entry has some hundred bytes.
const MAX_LISTING_BYTES: u64 = 64 << 20;

/// The reason of a failed download.
pub(super) enum DownloadFailure {
    /// The hub refused, could not be reached or answered nonsense. A complete copy in the cache is still valid.
    Refused(Error),
    /// All other errors.
    Final(Error),
}

impl From<Error> for DownloadFailure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// One repository of the hub at one revision.
pub(super) struct Hub<'a> {
    id: &'a str,
    revision: &'a InnerPath,
    endpoint: &'a Endpoint,
    page: String,
    client: Client,
    options: &'a HubOptions,
}

/// The hub's facts about a revision.
struct Listing {
    commit: Commit,
    /// All files, sorted and without repetition.
    files: Vec<InnerPath>,
}

/// The same, as the hub sends it.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A `model_index.json` that is checked before anything is written.
struct Index {
    config: ConfigFile,
    /// Its bytes with the hub's name for them, if they are not in the cache.
    arrived: Option<(RemoteFile, Vec<u8>)>,
}

impl<'a> Hub<'a> {
    pub(super) fn new(id: &'a str, revision: &'a InnerPath, options: &'a HubOptions) -> Self {
        let endpoint = &options.endpoint;
        Self {
            id,
            revision,
            endpoint,
            page: format!("{endpoint}/{id}"),
            client: Client::new(options),
            options,
        }
    }

    /// Downloads the `wanted` files to the cache, and moves the cache's ref when they are complete. Checks every name from the
    /// hub before it writes anything.
    pub(super) fn download(
        &self,
        wanted: Wanted<'_>,
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
        let total = small.len() + if wanted.weights { large.len() } else { 0 };
        let mut fetch = |file: &InnerPath, files_done| {
            let mut report = |done, total_bytes| {
                progress(HubProgress {
                    file: file.as_str(),
                    done,
                    total: total_bytes,
                    files_done,
                    files_total: total,
                })
            };
            self.fetch(file, &commit, cached, &mut report)
        };
        for (done, file) in small.iter().enumerate() {
            fetch(file, done)?;
        }
        check(&cached.source(&commit)?)?;
        if wanted.weights {
            for (done, file) in large.iter().enumerate() {
                fetch(file, small.len() + done)?;
            }
        }
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
            source: cached.source(&commit)?,
            commit: commit.as_str().to_owned(),
        })
    }

    /// Returns the commit of the revision and its files.
    fn listing(&self) -> Result<Listing, DownloadFailure> {
        let at = encoded(self.revision.as_str());
        let url = format!("{}/api/models/{}/revision/{at}", self.endpoint, self.id);
        let answer = self
            .client
            .text(&url, MAX_LISTING_BYTES)
            .map_err(|refusal| self.failure(refusal, None))?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|error| self.odd(&format!("no list of files: {error}")))?;
        let commit = Commit::new(&answer.sha)
            .ok_or_else(|| self.odd(&format!("commit `{}`", shorten(&answer.sha))))?;
        let asked = self.revision.as_str();
        if asked.len() >= 40
            && Commit::new(asked).is_some()
            && !asked.eq_ignore_ascii_case(&answer.sha)
        {
            return Err(self.odd(&format!("another commit than asked for: {}", answer.sha)));
        }
        let checked: Result<Vec<InnerPath>, DownloadFailure> = answer
            .siblings
            .iter()
            .map(|Sibling { rfilename: name }| {
                InnerPath::new(name).map_err(|reason| {
                    self.odd(&format!(
                        "the list of files names `{}`, which {reason}",
                        shorten(name)
                    ))
                })
            })
            .collect();
        let mut files = checked?;
        files.sort_unstable();
        files.dedup();
        Ok(Listing { commit, files })
    }

    /// Returns the pipeline's index from the cache or from the hub. Does not write it.
    fn index(
        &self,
        file: &InnerPath,
        commit: &Commit,
        cached: &RepoCache,
    ) -> Result<Index, DownloadFailure> {
        if cached.has(commit, file) {
            let config = cached.source(commit)?.config(MODEL_INDEX)?;
            return Ok(Index {
                config,
                arrived: None,
            });
        }
        let url = self.url(file, commit);
        let failure = |refusal| self.failure(refusal, Some(file));
        let remote = self.client.metadata(&url).map_err(failure)?;
        let bytes = self
            .client
            .text(&url, MAX_CONFIG_BYTES as u64)
            .map_err(failure)?;
        if bytes.len() as u64 != remote.size
            || (is_sha256(&remote.etag) && sha256(&bytes) != remote.etag)
        {
            return Err(failure(Refusal::Odd(
                "arrived damaged; run it again".into(),
            )));
        }
        let config = ConfigFile::parse(format!("{}/{MODEL_INDEX}", self.page), &bytes)
            .map_err(DownloadFailure::Refused)?;
        Ok(Index {
            config,
            arrived: Some((remote, bytes)),
        })
    }

    /// Writes a downloaded index to the cache.
    fn keep(
        &self,
        file: &InnerPath,
        commit: &Commit,
        cached: &RepoCache,
        index: Index,
    ) -> Result<(), DownloadFailure> {
        let Some((remote, bytes)) = index.arrived else {
            return Ok(());
        };
        let blob = cached.blob(&remote).map_err(DownloadFailure::Refused)?;
        let part = cached.part_path(&blob)?;
        let _lock = cached
            .lock(&blob, file, self.options.lock_timeout)
            .map_err(waited_in_vain)?;
        let written = std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, cached.blob_path(&blob)));
        written.map_err(|source| Error::Io { path: part, source })?;
        cached.link_blob(commit, file, &blob, remote.size)?;
        Ok(())
    }

    /// Downloads one file to the cache, if it is missing.
    fn fetch(
        &self,
        file: &InnerPath,
        commit: &Commit,
        cached: &RepoCache,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<(), DownloadFailure> {
        if cached.has(commit, file) {
            return Ok(());
        }
        let url = self.url(file, commit);
        let failure = |refusal| self.failure(refusal, Some(file));
        let remote = self.client.metadata(&url).map_err(failure)?;
        let blob = cached.blob(&remote).map_err(DownloadFailure::Refused)?;
        let link = || cached.link_blob(commit, file, &blob, remote.size);
        if link()? {
            return Ok(());
        }
        let part = cached.part_path(&blob)?;
        let _lock = cached
            .lock(&blob, file, self.options.lock_timeout)
            .map_err(waited_in_vain)?;
        // Another process may have been faster.
        if link()? {
            return Ok(());
        }
        let mut report = |done| report(done, remote.size);
        let arrived = self.client.download(&url, &remote, &part, &mut report);
        let arrived = arrived
            .and_then(|()| std::fs::rename(&part, cached.blob_path(&blob)).map_err(Refusal::Disk));
        arrived.map_err(|refusal| match refusal {
            Refusal::Disk(source) => Error::Io { path: part, source }.into(),
            other => failure(other),
        })?;
        link()?;
        Ok(())
    }

    /// Returns the address of the file in the commit. A revision could move during a long download.
    fn url(&self, file: &InnerPath, commit: &Commit) -> String {
        let path = encoded_path(file.as_str());
        format!(
            "{}/{}/resolve/{}/{path}",
            self.endpoint,
            self.id,
            commit.as_str()
        )
    }

    fn model(&self) -> String {
        format!("{} at {}", self.id, self.revision.as_str())
    }

    /// Converts a refusal to an error. `file` is the requested file, or `None` for the repository.
    fn failure(&self, refusal: Refusal, file: Option<&InnerPath>) -> DownloadFailure {
        let what = match file {
            Some(file) => format!("{}/{}", self.page, file.as_str()),
            None => self.model(),
        };
        DownloadFailure::Refused(match refusal {
            Refusal::Status(status) => self.status(status, what, file),
            Refusal::Network(reason) | Refusal::Odd(reason) => Error::Hub { what, reason },
            Refusal::Disk(error) => {
                let reason = error.to_string();
                return DownloadFailure::Final(Error::Hub { what, reason });
            }
        })
    }

    fn status(&self, status: u16, what: String, file: Option<&InnerPath>) -> Error {
        let model = self.model();
        match (status, file) {
            // The hub gives the same answer for private repositories and for those that do not exist.
            (401, None) => {
                let reason = format!(
                    "HTTP 401: no such repository, or one that needs a token (HF_TOKEN); see {}",
                    self.page
                );
                Error::ModelNotFound { model, reason }
            }
            (401 | 403, _) => Error::Gated {
                repo: self.id.into(),
                status,
                page: self.page.clone(),
            },
            (404, None) => {
                let reason = format!(
                    "HTTP 404: no such repository or revision; see {}",
                    self.page
                );
                Error::ModelNotFound { model, reason }
            }
            _ => Error::Hub {
                what,
                reason: format!("HTTP {status}"),
            },
        }
    }

    fn odd(&self, reason: &str) -> DownloadFailure {
        DownloadFailure::Refused(Error::Hub {
            what: self.model(),
            reason: reason.into(),
        })
    }
}

/// A lock that another process holds for too long is treated like a refusal of the hub.
fn waited_in_vain(error: Error) -> DownloadFailure {
    match error {
        error @ Error::Hub { .. } => DownloadFailure::Refused(error),
        other => DownloadFailure::Final(other),
    }
}
