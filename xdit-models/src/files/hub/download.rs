//! One repository of the hub: finds its commit and files, and downloads a file to the cache.

use serde::Deserialize;

use super::address::{Endpoint, encoded, encoded_path};
use super::cache::{Commit, RepoCache};
use super::client::{Client, Refusal, RemoteFile};
use super::options::HubOptions;
use super::part::{is_sha256, sha256};
use super::transfer::DownloadReport;
use crate::error::{Error, Result, shorten};
use crate::files::config::MODEL_INDEX;
use crate::files::config::{ConfigFile, MAX_CONFIG_BYTES};
use crate::files::inner_path::InnerPath;

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
    pub(super) revision: &'a InnerPath,
    endpoint: &'a Endpoint,
    pub(super) page: String,
    client: Client,
    options: &'a HubOptions,
}

/// The hub's facts about a revision.
pub(super) struct Listing {
    pub(super) commit: Commit,
    /// All files, sorted and without repetition.
    pub(super) files: Vec<InnerPath>,
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
pub(super) struct Index {
    pub(super) config: ConfigFile,
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

    /// Returns the commit of the revision and its files.
    pub(super) fn listing(&self) -> Result<Listing, DownloadFailure> {
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
    pub(super) fn index(
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
    pub(super) fn keep(
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
            .lock(&blob, file, self.options)
            .map_err(waited_in_vain)?;
        let written = std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, cached.blob_path(&blob)));
        written.map_err(|source| Error::Io { path: part, source })?;
        cached.link_blob(commit, file, &blob, remote.size)?;
        Ok(())
    }

    /// Downloads one file to the cache, if it is missing.
    pub(super) fn fetch(
        &self,
        file: &InnerPath,
        commit: &Commit,
        cached: &RepoCache,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<(), DownloadFailure> {
        if cached.has(commit, file) {
            return Ok(());
        }
        let remote = self.metadata(file, commit)?;
        let mut report = |done| {
            report(done, remote.size);
            Ok(())
        };
        self.fetch_known(file, &remote, commit, cached, &mut report)
    }

    /// What the hub says about a file.
    pub(super) fn metadata(
        &self,
        file: &InnerPath,
        commit: &Commit,
    ) -> Result<RemoteFile, DownloadFailure> {
        let found = self.client.metadata(&self.url(file, commit));
        found.map_err(|refusal| self.failure(refusal, Some(file)))
    }

    /// The first bytes of a file, as many as `wanted` says by those that have come, and the bytes of the whole.
    pub(super) fn start(
        &self,
        file: &InnerPath,
        commit: &Commit,
        wanted: impl Fn(&[u8]) -> usize,
    ) -> Result<(Vec<u8>, u64), DownloadFailure> {
        let found = self.client.start(&self.url(file, commit), wanted);
        found.map_err(|refusal| self.failure(refusal, Some(file)))
    }

    /// Brings a file of which the hub has spoken into the cache.
    pub(super) fn fetch_known(
        &self,
        file: &InnerPath,
        remote: &RemoteFile,
        commit: &Commit,
        cached: &RepoCache,
        report: &mut DownloadReport<'_>,
    ) -> Result<(), DownloadFailure> {
        let url = self.url(file, commit);
        let blob = cached.blob(remote).map_err(DownloadFailure::Refused)?;
        let link = || cached.link_blob(commit, file, &blob, remote.size);
        if link()? {
            return Ok(());
        }
        let part = cached.part_path(&blob)?;
        let _lock = cached
            .lock(&blob, file, self.options)
            .map_err(waited_in_vain)?;
        // Another process may have been faster.
        if link()? {
            return Ok(());
        }
        let arrived = self.client.download(&url, remote, &part, report);
        let arrived = arrived
            .and_then(|()| std::fs::rename(&part, cached.blob_path(&blob)).map_err(Refusal::Disk));
        arrived.map_err(|refusal| match refusal {
            Refusal::Disk(source) => Error::Io { path: part, source }.into(),
            other => self.failure(other, Some(file)),
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

    pub(super) fn model(&self) -> String {
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
            // The name of a file contains the address already.
            Refusal::Network(reason) if file.is_none() => {
                let reason = format!("{}: {}", self.endpoint, reason.trim_start_matches("io: "));
                Error::Hub { what, reason }
            }
            Refusal::Network(reason) | Refusal::Odd(reason) => Error::Hub { what, reason },
            Refusal::Stopped => {
                let reason = "stopped, because another file failed".into();
                return DownloadFailure::Final(Error::Hub { what, reason });
            }
            Refusal::Cancelled => return DownloadFailure::Final(Error::Cancelled),
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

    pub(super) fn odd(&self, reason: &str) -> DownloadFailure {
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
