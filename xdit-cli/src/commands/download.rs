//! `xdit-cli download`: a pipeline of the hub, complete in the cache.

use serde_json::json;
use xdit_models::quote;
use xdit_models::quote::counted;

use crate::args::cli::DownloadArgs;
use crate::report::console;
use crate::report::failure::{Failure, shown};
use crate::run::memory;
use crate::run::model;
use crate::run::model_choice::{ModelChoice, ModelPlace, NeededFiles};
use crate::run::session::Session;

/// Brings what the pipeline lacks into the hub's cache, and says where it lies.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &DownloadArgs, session: &Session) -> Result<u8, Failure> {
    session.begin_trace()?;
    let wanted = ModelChoice::new(&args.model, &args.files);
    let reason = match ModelPlace::of(&args.model) {
        ModelPlace::Hub(_) => None,
        ModelPlace::Demo => Some("the demo is inside this binary; nothing needs to be downloaded"),
        ModelPlace::Folder(_) => Some("this folder is on this machine already"),
        ModelPlace::Nowhere => Some("not a hub id (ORGANISATION/NAME)"),
    };
    if let Some(reason) = reason {
        let name = quote::name(&args.model);
        return Err(Failure::usage(format!("download {name}: {reason}")));
    }
    let (source, commit) = model::source(wanted, NeededFiles::All, session)?;
    let files = source.list()?;
    let folder = source
        .path()
        .map(std::path::Path::to_owned)
        .unwrap_or_default();
    let bytes = |file: &String| std::fs::metadata(folder.join(file)).map_or(0, |it| it.len());
    let bytes: u64 = files.iter().map(bytes).sum();
    let commit = commit.unwrap_or_default();
    if session.report.json {
        console::print_json(&json!({
            "model": args.model,
            "revision": commit,
            "folder": folder,
            "files": files,
            "bytes": bytes,
        }))?;
    } else if !session.report.quiet {
        console::print(&format!(
            "{} at {commit}: {}, {} in {}\n",
            quote::name(&args.model),
            counted(files.len(), "file"),
            memory::shown(bytes),
            shown(&folder)
        ))?;
    }
    Ok(0)
}
