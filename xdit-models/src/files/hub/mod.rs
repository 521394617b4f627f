//! Downloads pipelines from the Hugging Face hub to the cache that huggingface_hub and other tools share.
//!
//! This module reads no environment variables. The caller fills in [`HubOptions`].

mod address;
mod cache;
mod choose;
mod client;
mod download;
mod headers;
mod lock;
mod options;
mod parallel;
mod part;
mod pipeline;
mod progress;
mod transfer;

use crate::error::{Error, Result, shorten};
use crate::files::inner_path::InnerPath;
use crate::files::snapshots::{Found, MAIN, Wanted};
use crate::files::source::{ModelSource, OPTIONAL_T5};
pub use address::{Endpoint, HUB_ENDPOINT, Token};
use cache::RepoCache;
use download::{DownloadFailure, Hub};
pub use options::{HubOptions, HubWeights};
pub use progress::{HubProgress, Snapshot};

/// Returns the pipeline `id` (`ORG/NAME`) of the hub at `revision` (a branch, tag or commit; default `main`). Downloads the
/// files that are not in the cache.
///
/// It downloads only the files that a pipeline needs: `model_index.json`, configurations, tokenizers, and the safetensors of
/// each component, of `variant` if they exist. The cache's ref of the revision moves when these files are complete. If the hub
/// refuses, cannot be reached or answers nonsense, a complete copy in the cache is used, with a warning in the log: that of the
/// revision, or for `main` an older one.
///
/// # Errors
/// [`Error::ModelNotFound`] if the repository or revision does not exist, or, offline, is not in the cache;
/// [`Error::IncompleteModel`] if, offline, only a part is in the cache; [`Error::Gated`] with the page where the licence can be
/// accepted; [`Error::Hub`] if the network fails or the hub's answer is invalid; [`Error::MissingFile`] if the repository is
/// not a diffusers pipeline; [`Error::InvalidRequest`] for an invalid name of a revision.
///
/// # Examples
/// ```no_run
/// use xdit_models::hub::{HubOptions, snapshot};
/// let options = HubOptions::new("/home/me/.cache/huggingface/hub");
/// let flux = snapshot("black-forest-labs/FLUX.1-schnell", None, None, &options, &mut |progress| {
///     eprintln!("{} of {} bytes of weights", progress.bytes_done, progress.bytes_total);
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

/// Like [`snapshot`], but calls `check` with the pipeline's configurations before it downloads weights. `check` can refuse
/// them, for example with [`Pipeline::plan`](crate::Pipeline::plan) if the model cannot serve a request.
///
/// # Errors
/// As [`snapshot`], and the errors of `check`.
///
/// # Examples
/// ```no_run
/// use xdit_models::hub::{HubOptions, snapshot_checked};
/// use xdit_models::{LoadOptions, Parallel, Pipeline, Request};
/// let (request, parallel) = (Request::new("a red circle").height(1024), Parallel::default());
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
    let revision = check_names(id, revision.unwrap_or(MAIN))?;
    let model = format!("{id} at {}", revision.as_str());
    let wanted = Wanted {
        variant,
        weights: options.weights != HubWeights::None,
        without: match options.without_t5 {
            true => OPTIONAL_T5,
            false => &[],
        },
    };
    let cached = RepoCache::new(&options.cache_dir, id);
    if options.offline {
        return match cached.find(&revision, wanted)? {
            Found::Whole {
                source,
                commit,
                instead_of,
            } => {
                if let Some(own) = instead_of {
                    tracing::warn!("{model}: {}", older(&commit, &own));
                }
                Ok(Snapshot { source, commit })
            }
            Found::Half { commit, missing } => Err(Error::IncompleteModel {
                model: format!("{model} (commit {commit})"),
                missing,
                cure: "; run this once with a connection to the hub".into(),
            }),
            Found::Nothing => Err(Error::ModelNotFound {
                model,
                reason: format!("offline, and not in {}", options.cache_dir.display()),
            }),
        };
    }
    let hub = Hub::new(id, &revision, options);
    match hub.download((wanted, options.weights), &cached, check, progress) {
        Ok(snapshot) => Ok(snapshot),
        Err(DownloadFailure::Final(error)) => Err(error),
        Err(DownloadFailure::Refused(error)) => match cached.find(&revision, wanted)? {
            Found::Whole {
                source,
                commit,
                instead_of,
            } => {
                let copy = match instead_of {
                    Some(own) => older(&commit, &own),
                    None => format!("using the copy in the cache, commit {commit}"),
                };
                tracing::warn!("{error}; {copy}");
                Ok(Snapshot { source, commit })
            }
            Found::Half { missing, .. } => Err(error.with_note(&format!(
                "; the copy in the cache is incomplete, it lacks {}",
                shorten(&missing)
            ))),
            Found::Nothing if matches!(error, Error::Hub { .. }) => Err(error.with_note(&format!(
                "; {} has no copy; try again later, or give a folder that has the model",
                options.cache_dir.display()
            ))),
            Found::Nothing => Err(error),
        },
    }
}

/// Logs that the copy of `commit` is used because the ref's `own` commit is incomplete.
fn older(commit: &str, own: &str) -> String {
    format!("using another copy in the cache, commit {commit}: that of commit {own} is incomplete")
}

/// Checks that `id` is a valid name `ORG/NAME` or `NAME` of the hub, so that two repositories never share a folder in the
/// cache. Returns the revision as a path among refs.
fn check_names(id: &str, revision: &str) -> Result<InnerPath> {
    let plain = |part: &str, more: &str| {
        (1..=250).contains(&part.len())
            && !part.starts_with(['.', '-', '/'])
            && !part.contains("..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c))
    };
    let parts = id.split('/').count();
    if !id.split('/').all(|part| plain(part, "")) || parts > 2 || id.contains("--") {
        let reason = "not a folder, and not a hub id (ORGANISATION/NAME)".into();
        return Err(Error::ModelNotFound {
            model: shorten(id),
            reason,
        });
    }
    let checked = InnerPath::new(revision).ok();
    checked.filter(|_| plain(revision, "/+")).ok_or_else(|| {
        Error::invalid(
            "revision",
            revision,
            "the name of a branch or tag, or a commit",
        )
    })
}

#[cfg(test)]
mod tests;
