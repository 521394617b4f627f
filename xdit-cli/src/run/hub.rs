//! Downloads a pipeline from the hub, with a bar for each file.

use indicatif::ProgressBar;
use xdit_models::hub::snapshot_checked;
use xdit_models::{Error, ModelSource, quote};

use crate::args::cli::HubArgs;
use crate::report::console::Unit;
use crate::report::failure::Failure;
use crate::run::hub_options::options;
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
    options.configurations_only = matches!(files, NeededFiles::Configurations);
    options.without_t5 = wanted.no_t5;
    let mut check = |source: &ModelSource| match files {
        NeededFiles::Checked(check) => check(&wanted.parts(source.clone())?),
        _ => Ok(()),
    };
    tracing::info!(id, ?options, "hub");
    let draws = !environment.is_on("HF_HUB_DISABLE_PROGRESS_BARS");
    let mut bar: Option<(String, ProgressBar)> = None;
    let found = snapshot_checked(
        id,
        args.revision.as_deref(),
        args.variant.as_deref(),
        &options,
        &mut check,
        &mut |progress| {
            if !draws {
                return;
            }
            if bar.as_ref().is_none_or(|(file, _)| file != progress.file) {
                if let Some((_, bar)) = bar.take() {
                    bar.finish_and_clear();
                }
                let new = session.console.bar("download", progress.total, Unit::Bytes);
                let number = format!(
                    "{}/{} {}",
                    progress.files_done + 1,
                    progress.files_total,
                    progress.file
                );
                new.set_message(quote::shorten(&number));
                bar = Some((progress.file.to_owned(), new));
            }
            if let Some((_, bar)) = &bar {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
        },
    );
    if let Some((_, bar)) = bar {
        bar.finish_and_clear();
    }
    let found = found.map_err(|error| with_command(error, id, args))?;
    Ok((found.source, Some(found.commit)))
}

/// Adds the command that completes an incomplete model.
fn with_command(error: Error, id: &str, args: &HubArgs) -> Error {
    let Error::IncompleteModel { model, missing, .. } = error else {
        return error;
    };
    let mut command = format!("HF_HUB_OFFLINE=0 xdit-cli info {id}");
    for (flag, value) in [("--revision", &args.revision), ("--variant", &args.variant)] {
        if let Some(value) = value {
            command += &format!(" {flag} {value}");
        }
    }
    if let Some(folder) = &args.download_dir {
        command += &format!(" --download-dir {}", folder.display());
    }
    Error::IncompleteModel {
        model,
        missing,
        cure: format!("; complete it: {command}"),
    }
}
