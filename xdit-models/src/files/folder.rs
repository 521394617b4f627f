//! A pipeline in a folder, or in the folder of a repository in the hub's cache.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::files::config::MODEL_INDEX;
use crate::files::disk::read_at_most;
use crate::files::hints;
use crate::files::inner_path;
use crate::files::snapshots::{self, Found, MAIN, Wanted};
use crate::files::source::ModelSource;
use crate::quote;

impl ModelSource {
    /// Opens the pipeline in the folder `path`. The folder of a repository in the hub's cache (`models--ORG--NAME`) selects its
    /// snapshot.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the folder does not exist, or has several snapshots and none of them is `refs/main`.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name = path.display().to_string();
        if !path.is_dir() {
            let reason = if path.exists() {
                "is a file, not the folder of a pipeline"
            } else {
                "no such folder"
            };
            return Err(Error::ModelNotFound {
                model: name,
                reason: reason.into(),
            });
        }
        Ok(Self::in_folder(pipeline_folder(path)?))
    }
}

/// Returns the folder of the pipeline that `path` selects. The folder of a repository in the hub's cache (`models--ORG--NAME`)
/// selects the snapshot of `refs/main`, another complete one if that is incomplete, or the only one.
fn pipeline_folder(path: PathBuf) -> Result<PathBuf> {
    let snapshots = path.join("snapshots");
    if path.join(MODEL_INDEX).exists() || !snapshots.is_dir() {
        return Ok(path);
    }
    let main = match path.join("refs/main") {
        file if file.is_file() => read_at_most(&file, 1000)?,
        _ => Vec::new(),
    };
    let main = std::str::from_utf8(&main).unwrap_or_default().trim();
    let is_name = inner_path::check(main).is_ok() && !main.contains('/');
    let all = Wanted {
        variant: None,
        weights: true,
        without: &[],
    };
    if is_name
        && let Found::Whole {
            commit,
            instead_of: Some(own),
            ..
        } = snapshots::find(&path, MAIN, all)?
    {
        let shown = quote::name(&path.display().to_string());
        tracing::warn!("{shown}: using commit {commit}: that of refs/main, {own}, is incomplete");
        return Ok(snapshots.join(commit));
    }
    if is_name && snapshots.join(main).is_dir() {
        return Ok(snapshots.join(main));
    }
    let found: Vec<String> = hints::folders(&snapshots);
    let reason = match found.as_slice() {
        [one] => return Ok(snapshots.join(one)),
        [] => {
            "a folder of the hub's cache without a snapshot".to_owned() + &hints::to_complete(&path)
        }
        several => format!(
            "a folder of the hub's cache with several snapshots, none of them `refs/main`; give one: {}",
            hints::listed(several.iter().map(|name| format!("snapshots/{name}")))
        ),
    };
    Err(Error::ModelNotFound {
        model: path.display().to_string(),
        reason,
    })
}
