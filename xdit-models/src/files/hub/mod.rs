//! Pipelines from the Hugging Face hub, through the cache that huggingface_hub and every other tool share.
//!
//! Nothing here reads the environment: the caller fills in [`HubOptions`].

mod address;
mod cache;
mod choose;
mod client;
mod download;
mod lock;
mod options;
mod part;
mod progress;
mod transfer;

use crate::error::{Error, Result, shorten};
use crate::files::inner_path::InnerPath;
use crate::files::snapshots::{Found, MAIN, Wanted};
use crate::files::source::{ModelSource, OPTIONAL_T5};
pub use address::{Endpoint, HUB_ENDPOINT, Token};
use cache::RepoCache;
use download::{DownloadFailure, Hub};
pub use options::HubOptions;
pub use progress::{HubProgress, Snapshot};

/// The pipeline `id` (`ORG/NAME`) of the hub at `revision` (a branch, tag or commit; `main` if left out), downloaded as
/// far as the cache lacks it.
///
/// Only what a pipeline needs is downloaded: `model_index.json`, configurations, tokenizers, and the safetensors of
/// each component, of `variant` where there are such. The cache's ref of the revision moves when that is whole, and not
/// before. When the hub refuses, cannot be reached or makes no sense, a copy in the cache that is whole is used, with a
/// warning in the log: that of the revision, and for `main` an older one.
///
/// # Errors
/// [`Error::ModelNotFound`] when there is no such repository or revision, or offline not in the cache;
/// [`Error::IncompleteModel`] when offline a part of it is; [`Error::Gated`] with the page where the licence is accepted;
/// [`Error::Hub`] when the network fails or the hub's answer makes no sense; [`Error::MissingFile`] when the repository is
/// not a diffusers pipeline; [`Error::InvalidRequest`] for what is no name of a revision.
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
    let revision = check_names(id, revision.unwrap_or(MAIN))?;
    let model = format!("{id} at {}", revision.as_str());
    let wanted = Wanted {
        variant,
        weights: !options.configurations_only,
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
    match hub.download(wanted, &cached, check, progress) {
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
            Found::Nothing => Err(error),
        },
    }
}

/// Says that the copy of `commit` is used where that of the ref's `own` is not whole.
fn older(commit: &str, own: &str) -> String {
    format!("using another copy in the cache, commit {commit}: that of commit {own} is incomplete")
}

/// Checks that `id` is `ORG/NAME` or `NAME`, as the hub allows them: no two have the same folder in the cache. Returns the
/// revision, which is a path among refs.
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
