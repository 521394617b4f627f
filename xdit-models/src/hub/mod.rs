//! Pipelines from the Hugging Face hub, through the cache that huggingface_hub and every other tool share.
//!
//! Nothing here reads the environment: the caller fills in [`HubOptions`].

mod cache;
mod choose;
mod client;
mod options;

use hf_hub::api::RepoInfo;
use hf_hub::{Repo, RepoType};

use crate::error::{Error, Result, shorten};
use crate::model_index::MODEL_INDEX;
use crate::source::ModelSource;
use cache::RepoCache;
use client::{Client, Refusal};
pub use options::{HUB_ENDPOINT, HubOptions};

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

/// The pipeline `id` (`ORG/NAME`) of the hub at `revision` (a branch, tag or commit; `main` if left out), downloaded as
/// far as the cache lacks it.
///
/// Only what a pipeline needs is downloaded: `model_index.json`, configurations, tokenizers, and the safetensors of
/// each component, of `variant` where there are such. When the hub cannot be reached, a pipeline that is in the cache
/// is used, with a warning in the log.
///
/// # Errors
/// [`Error::ModelNotFound`] when there is no such repository or revision, or offline not in the cache; [`Error::Gated`]
/// with the page where the licence is accepted; [`Error::Hub`] when the network fails or the hub's answer makes no
/// sense; [`Error::MissingFile`] when the repository is not a diffusers pipeline.
///
/// # Examples
/// ```no_run
/// use xdit_models::hub::{HubOptions, snapshot};
/// let options = HubOptions::new("/home/me/.cache/huggingface/hub");
/// let flux = snapshot("black-forest-labs/FLUX.1-schnell", None, None, &options, &mut |progress| {
///     eprintln!("{}: {} of {} bytes", progress.file, progress.done, progress.total);
/// })?;
/// println!("{:?}", flux.source.list()?);
/// # Ok::<(), xdit_models::Error>(())
/// ```
pub fn snapshot(
    id: &str,
    revision: Option<&str>,
    variant: Option<&str>,
    options: &HubOptions,
    progress: &mut dyn FnMut(HubProgress<'_>),
) -> Result<Snapshot> {
    snapshot_checked(id, revision, variant, options, &mut |_| Ok(()), progress)
}

/// As [`snapshot`], but `check` sees the pipeline's configurations before any of its weights is downloaded, and can refuse
/// them: with [`Pipeline::plan`](crate::Pipeline::plan), a request that the model cannot serve.
///
/// # Errors
/// As [`snapshot`], and whatever `check` returns.
///
/// # Examples
/// ```no_run
/// use xdit_models::hub::{HubOptions, snapshot_checked};
/// use xdit_models::{LoadOptions, Parallel, Pipeline, Request};
/// let (request, parallel) = (Request::new(["a red circle"]).height(1024), Parallel::default());
/// let mut check = |configurations: &_| {
///     Pipeline::plan(configurations, &LoadOptions::default(), &request, &parallel).map(|_| ())
/// };
/// let options = HubOptions::new("/home/me/.cache/huggingface/hub");
/// let flux = snapshot_checked("black-forest-labs/FLUX.1-schnell", None, None, &options, &mut check, &mut |_| {})?;
/// # Ok::<(), xdit_models::Error>(())
/// ```
pub fn snapshot_checked(
    id: &str,
    revision: Option<&str>,
    variant: Option<&str>,
    options: &HubOptions,
    check: &mut dyn FnMut(&ModelSource) -> Result<()>,
    progress: &mut dyn FnMut(HubProgress<'_>),
) -> Result<Snapshot> {
    let revision = revision.unwrap_or("main");
    check_names(id, revision)?;
    let cached = RepoCache::new(&options.cache_dir, id);
    if options.offline {
        return cached
            .snapshot(revision)?
            .ok_or_else(|| Error::ModelNotFound {
                model: format!("{id} at {revision}"),
                reason: format!("offline, and not in {}", options.cache_dir.display()),
            });
    }
    let hub = Hub::new(id, revision, options);
    match hub.download(
        variant,
        !options.configurations_only,
        &cached,
        check,
        progress,
    ) {
        Err(Failure::Unreachable(error)) => match cached.snapshot(revision)? {
            Some(snapshot) => {
                tracing::warn!(%error, id, commit = snapshot.commit, "the hub cannot be reached: using the cache");
                Ok(snapshot)
            }
            None => Err(error),
        },
        Err(Failure::Final(error)) => Err(error),
        Ok(snapshot) => Ok(snapshot),
    }
}

/// A download that failed: because the hub cannot be reached, or for a reason that the cache does not cure.
enum Failure {
    Unreachable(Error),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// One repository of the hub at one revision.
struct Hub<'a> {
    id: &'a str,
    revision: &'a str,
    endpoint: &'a str,
    page: String,
    client: Client,
}

impl<'a> Hub<'a> {
    fn new(id: &'a str, revision: &'a str, options: &'a HubOptions) -> Self {
        let endpoint = options.endpoint.trim_end_matches('/');
        Self {
            id,
            revision,
            endpoint,
            page: format!("{endpoint}/{id}"),
            client: Client::new(options),
        }
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.into(), RepoType::Model, revision.into())
    }

    fn info(&self) -> Result<RepoInfo, Failure> {
        let url = format!(
            "{}/api/{}",
            self.endpoint,
            self.repo(self.revision).api_url()
        );
        let answer = self
            .client
            .text(&url)
            .map_err(|refusal| self.failure(refusal, None))?;
        serde_json::from_slice(&answer)
            .map_err(|error| self.odd(&format!("no list of files: {error}")).into())
    }

    fn download(
        &self,
        variant: Option<&str>,
        weights: bool,
        cached: &RepoCache,
        check: &mut dyn FnMut(&ModelSource) -> Result<()>,
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<Snapshot, Failure> {
        let info = self.info()?;
        let commit = info.sha;
        if commit.is_empty() || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.odd(&format!("commit `{}`", shorten(&commit))).into());
        }
        let files: Vec<String> = info
            .siblings
            .into_iter()
            .map(|file| file.rfilename)
            .collect();
        if !files.iter().any(|file| file == MODEL_INDEX) {
            let hint = "; the repository is not a diffusers pipeline".into();
            return Err(Error::MissingFile {
                file: format!("{}/{MODEL_INDEX}", self.page),
                hint,
            }
            .into());
        }
        let mut fetch = |file: &str, files_done, files_total| {
            if cached.has(&commit, file) {
                return Ok(());
            }
            let mut report = |done, total| {
                progress(HubProgress {
                    file,
                    done,
                    total,
                    files_done,
                    files_total,
                })
            };
            self.fetch(file, &commit, cached, &mut report)
        };
        fetch(MODEL_INDEX, 0, 1)?;
        let index = cached.source(&commit)?.config(MODEL_INDEX)?;
        let needed = choose::needed(&files, &index, variant);
        let is_weights = |file: &String| file.contains(".safetensors");
        let (large, small): (Vec<_>, Vec<_>) = needed.into_iter().partition(is_weights);
        let total = small.len() + if weights { large.len() } else { 0 };
        for (done, file) in small.iter().enumerate() {
            fetch(file, done, total)?;
        }
        check(&cached.source(&commit)?)?;
        if weights {
            for (done, file) in large.iter().enumerate() {
                fetch(file, small.len() + done, total)?;
            }
        }
        cached.write_ref(self.revision, &commit)?;
        Ok(Snapshot {
            source: cached.source(&commit)?,
            commit,
        })
    }

    fn fetch(
        &self,
        file: &str,
        commit: &str,
        cached: &RepoCache,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        // Of the commit: a revision may move while gigabytes arrive.
        let repo = self.repo(commit);
        let (name, at) = (repo.url(), repo.url_revision());
        let url = format!("{}/{name}/resolve/{at}/{file}", self.endpoint);
        let failure = |refusal| self.failure(refusal, Some(file));
        let remote = self.client.metadata(&url).map_err(failure)?;
        let link = || cached.link_blob(commit, file, &remote.etag, remote.size);
        if link()? {
            return Ok(());
        }
        let (blob, part) = cached.blob(&remote.etag)?;
        let _lock = cached.lock(&remote.etag)?;
        // Another process may have been faster.
        if link()? {
            return Ok(());
        }
        let mut report = |done| report(done, remote.size);
        let arrived = self.client.download(&url, &remote, &part, &mut report);
        let arrived = arrived.and_then(|()| std::fs::rename(&part, &blob).map_err(Refusal::Disk));
        arrived.map_err(|refusal| match refusal {
            Refusal::Disk(source) => Error::Io { path: part, source }.into(),
            other => failure(other),
        })?;
        link()?;
        Ok(())
    }

    /// What a refusal means; `file` is what was asked for, if not the repository itself.
    fn failure(&self, refusal: Refusal, file: Option<&str>) -> Failure {
        let model = format!("{} at {}", self.id, self.revision);
        let what = file.map_or_else(|| model.clone(), |file| format!("{}/{file}", self.page));
        match refusal {
            // A hub that is down, or has had enough of us, is as good as none.
            Refusal::Status(status @ (429 | 500..)) => {
                let reason = format!("HTTP {status}");
                Failure::Unreachable(Error::Hub { what, reason })
            }
            Refusal::Status(status) => self.status(status, model, what, file).into(),
            Refusal::Network(reason) => Failure::Unreachable(Error::Hub { what, reason }),
            Refusal::Odd(reason) => Error::Hub { what, reason }.into(),
            Refusal::Disk(error) => {
                let reason = error.to_string();
                Error::Hub { what, reason }.into()
            }
        }
    }

    fn status(&self, status: u16, model: String, what: String, file: Option<&str>) -> Error {
        match (status, file) {
            // The hub hides private repositories and those that do not exist behind the same answer.
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

    fn odd(&self, reason: &str) -> Error {
        Error::Hub {
            what: format!("{} at {}", self.id, self.revision),
            reason: reason.into(),
        }
    }
}

/// Checks that `id` is `ORG/NAME` or `NAME`, and that both are fit for a path and an address.
fn check_names(id: &str, revision: &str) -> Result<()> {
    let plain = |part: &str, more: &str| {
        (1..=250).contains(&part.len())
            && !part.starts_with(['.', '-', '/'])
            && !part.contains("..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c))
    };
    if !id.split('/').all(|part| plain(part, "")) || id.split('/').count() > 2 {
        let reason = "not a folder, and not a hub id (ORGANISATION/NAME)".into();
        return Err(Error::ModelNotFound {
            model: shorten(id),
            reason,
        });
    }
    if !plain(revision, "/+") {
        return Err(Error::invalid(
            "revision",
            revision,
            "the name of a branch or tag, or a commit",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
