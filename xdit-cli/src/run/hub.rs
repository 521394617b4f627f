//! Downloads a pipeline from the hub, with one bar for all weights.

use std::sync::atomic::Ordering;

use xdit_models::hub::{HubWeights, snapshot_checked};
use xdit_models::{Error, ModelSource, quote};

use crate::args::model::HubArgs;
use crate::report::bar::{Bar, Unit};
use crate::report::failure::Failure;
use crate::run::hub_options::options;
use crate::run::memory::shown;
use crate::run::model_choice::{ModelChoice, NeededFiles};
use crate::run::session::Session;

/// Downloads the files of the wanted pipeline that are not in the cache. Returns the pipeline and its commit.
///
/// # Errors
/// [`Failure::Model`] if it does not exist, its licence is not accepted, or the network fails.
pub(crate) fn download(
    wanted: ModelChoice<'_>,
    files: NeededFiles<'_>,
    session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    let (id, args) = (wanted.name, wanted.hub);
    let environment = &session.environment;
    let mut options = options(environment, args.download_dir.as_deref())?;
    options.weights = match files {
        NeededFiles::Configurations => HubWeights::None,
        NeededFiles::Headers => HubWeights::Headers,
        NeededFiles::All | NeededFiles::Checked(_) => HubWeights::Whole,
    };
    options.without_t5 = wanted.no_t5;
    options.offline |= session.cache_only.load(Ordering::Relaxed);
    let mut check = |source: &ModelSource| match files {
        NeededFiles::Checked(check) => check(&wanted.parts(source.clone())?),
        _ => Ok(()),
    };
    let (hub, cache) = (&options.endpoint, options.cache_dir.display());
    tracing::info!(id, %hub, %cache, options.offline, "hub");
    let draws = !environment.is_on("HF_HUB_DISABLE_PROGRESS_BARS");
    let mut bar: Option<Option<Bar>> = None;
    let found = snapshot_checked(
        id,
        args.revision.as_deref(),
        args.variant.as_deref(),
        &options,
        &mut check,
        &mut |progress| {
            if progress.bytes_total == 0 {
                return;
            }
            let bar = bar.get_or_insert_with(|| {
                let (bytes, folder) = (shown(progress.bytes_total), &options.cache_dir);
                let folder = quote::name(&folder.display().to_string());
                session
                    .console
                    .note(&format!("downloading {bytes} of {id} into {folder}"));
                let total = progress.bytes_total;
                draws.then(|| Bar::new(&session.console, "download", total, Unit::Bytes))
            });
            if let Some(bar) = bar {
                let files = [progress.files_done, progress.files_total];
                bar.set_message(format!("{}/{} files", files[0], files[1]));
                bar.set_position(progress.bytes_done);
            }
        },
    );
    drop(bar);
    let found = found.map_err(|error| match options.offline {
        true => with_command(error, id, args),
        false => error,
    })?;
    Ok((found.source, Some(found.commit)))
}

/// Adds what keeps the program offline, and the command that downloads what the cache lacks.
fn with_command(error: Error, id: &str, args: &HubArgs) -> Error {
    let mut command = format!("HF_HUB_OFFLINE=0 xdit-cli download {id}");
    for (flag, value) in [("--revision", &args.revision), ("--variant", &args.variant)] {
        if let Some(value) = value {
            command += &format!(" {flag} {value}");
        }
    }
    if let Some(folder) = &args.download_dir {
        command += &format!(" --download-dir {}", folder.display());
    }
    match error {
        Error::IncompleteModel { model, missing, .. } => Error::IncompleteModel {
            model,
            missing,
            cure: format!("; HF_HUB_OFFLINE is set; complete it: {command}"),
        },
        Error::ModelNotFound { model, reason } => Error::ModelNotFound {
            model,
            reason: format!("{reason}; HF_HUB_OFFLINE is set; download it: {command}"),
        },
        other => other,
    }
}
