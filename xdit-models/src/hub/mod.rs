//! Pipelines from the Hugging Face hub, through the cache that huggingface_hub and every other tool share.
//!
//! Nothing here reads the environment: the caller fills in [`HubOptions`].

mod cache;
mod choose;

use std::path::PathBuf;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::error::{Error, Result, shorten};
use crate::model_index::MODEL_INDEX;
use crate::source::ModelSource;
use cache::RepoCache;

/// The hub itself.
pub const HUB_ENDPOINT: &str = "https://huggingface.co";
/// How often a download that breaks off is taken up again.
const RETRIES: usize = 3;

/// Where the hub is and how to deal with it.
#[derive(Clone)]
pub struct HubOptions {
    /// The cache's folder, which holds `models--ORG--NAME` (`HF_HUB_CACHE`).
    pub cache_dir: PathBuf,
    /// The hub's address (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The user's token (`HF_TOKEN`).
    pub token: Option<String>,
    /// Whether to use the cache alone (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Whether to leave the weights where they are: for [`Pipeline::plan`](crate::Pipeline::plan), which reads none.
    pub configurations_only: bool,
}

impl HubOptions {
    /// The public hub without a token, cached in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            endpoint: HUB_ENDPOINT.into(),
            token: None,
            offline: false,
            configurations_only: false,
        }
    }
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("configurations_only", &self.configurations_only)
            .finish()
    }
}

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
    let hub = Hub::new(id, revision, options)?;
    match hub.download(variant, !options.configurations_only, &cached, progress) {
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
    page: String,
    api: Api,
    repo: ApiRepo,
}

impl<'a> Hub<'a> {
    fn new(id: &'a str, revision: &'a str, options: &HubOptions) -> Result<Self> {
        let endpoint = options.endpoint.trim_end_matches('/');
        let api = ApiBuilder::from_cache(Cache::new(options.cache_dir.clone()))
            .with_endpoint(endpoint.into())
            .with_token(options.token.clone())
            .with_retries(RETRIES)
            .with_progress(false)
            .build()
            .map_err(|error| Error::Hub {
                what: endpoint.into(),
                reason: error.to_string(),
            })?;
        let repo = api.repo(Repo::with_revision(
            id.into(),
            RepoType::Model,
            revision.into(),
        ));
        Ok(Self {
            id,
            revision,
            page: format!("{endpoint}/{id}"),
            api,
            repo,
        })
    }

    fn download(
        &self,
        variant: Option<&str>,
        weights: bool,
        cached: &RepoCache,
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<Snapshot, Failure> {
        let info = self
            .repo
            .info()
            .map_err(|error| self.failure(error, None))?;
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
        let mut needed = choose::needed(&files, &index, variant);
        needed.retain(|file| weights || !file.contains(".safetensors"));
        for (done, file) in needed.iter().enumerate() {
            fetch(file, done, needed.len())?;
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
        let metadata = self
            .api
            .metadata(&self.repo.url(file))
            .map_err(|error| self.failure(error, Some(file)))?;
        if metadata.commit_hash() != commit {
            return Err(self
                .odd("the revision moved during the download: run it again")
                .into());
        }
        if cached.link_blob(commit, file, metadata.etag(), metadata.size() as u64)? {
            return Ok(());
        }
        let reporter = Reporter {
            report,
            done: 0,
            total: metadata.size() as u64,
        };
        self.repo
            .download_with_progress(file, reporter)
            .map_err(|error| self.failure(error, Some(file)))?;
        if cached.len(commit, file) != Some(metadata.size() as u64) {
            cached.remove(commit, file);
            return Err(self
                .odd(&format!("{} did not arrive whole", shorten(file)))
                .into());
        }
        Ok(())
    }

    /// What an error of the library means; `file` is what was asked for, if not the repository itself.
    fn failure(&self, error: ApiError, file: Option<&str>) -> Failure {
        let model = format!("{} at {}", self.id, self.revision);
        let what = file.map_or_else(|| model.clone(), |file| format!("{}/{file}", self.page));
        let network = match &error {
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(status) => {
                    return self.status(status, model, what, file).into();
                }
                _ => true,
            },
            _ => false,
        };
        let reason = match error {
            ApiError::LockAcquisition(_) => "another process is downloading it".into(),
            ApiError::InvalidResume => {
                "a part of it in the cache is damaged: delete its .part file in blobs/".into()
            }
            other => shorten(&other.to_string()),
        };
        let error = Error::Hub { what, reason };
        if network {
            Failure::Unreachable(error)
        } else {
            Failure::Final(error)
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

/// Hands the library's progress on.
struct Reporter<'a> {
    report: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Progress for Reporter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.report)(self.done, self.total);
    }

    fn finish(&mut self) {}
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
