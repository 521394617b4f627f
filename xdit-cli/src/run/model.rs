//! `--model`: the demo inside the binary, a folder, or a repository of the hub.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use xdit_models::{Error, ModelIndex, ModelSource, RunPlan};

use crate::args::cli::{HubArgs, ModelArgs};
use crate::output::record::ModelRecord;
use crate::report::failure::Failure;
use crate::run::digest;
use crate::run::environment::Environment;
use crate::run::session::Session;

/// The name of the pipeline inside the binary.
pub(crate) const DEMO: &str = "demo";

/// What may refuse a pipeline by its configurations.
pub(crate) type ConfigCheck<'a> = &'a dyn Fn(&ModelSource) -> xdit_models::Result<()>;

/// What is going to be done with a pipeline, or why its configurations do not allow it.
pub(crate) type PlanFor<'a> = &'a dyn Fn(&ModelSource) -> xdit_models::Result<RunPlan>;

/// Which files of a pipeline are needed.
#[derive(Clone, Copy)]
pub(crate) enum NeededFiles<'a> {
    /// All.
    All,
    /// All; but weights are downloaded only when this has seen the configurations.
    #[cfg_attr(
        not(feature = "hub"),
        expect(dead_code, reason = "it is the hub that calls it")
    )]
    Checked(ConfigCheck<'a>),
    /// None of the weights.
    Configurations,
}

/// Which pipeline is wanted, and which parts of it.
#[derive(Clone, Copy)]
pub(crate) struct ModelChoice<'a> {
    /// A folder, a hub id, or `demo`.
    pub name: &'a str,
    /// Where on the hub, and which weights.
    pub hub: &'a HubArgs,
    /// Whether the optional T5 is left out.
    pub no_t5: bool,
}

impl<'a> ModelChoice<'a> {
    /// What the flags say; the demo if they name none.
    pub(crate) fn new(args: &'a ModelArgs) -> Self {
        Self {
            name: args.model.as_deref().unwrap_or(DEMO),
            hub: &args.hub,
            no_t5: args.no_t5,
        }
    }

    /// The wanted parts of a pipeline.
    ///
    /// # Errors
    /// As [`ModelSource::without_t5`].
    pub(crate) fn parts(&self, source: ModelSource) -> xdit_models::Result<ModelSource> {
        match self.no_t5 {
            true => source.without_t5(),
            false => Ok(source),
        }
    }
}

/// A pipeline that was found.
#[derive(Debug)]
pub(crate) struct FoundModel {
    /// Its files.
    pub source: ModelSource,
    /// How a later run finds it again.
    pub record: ModelRecord,
}

impl FoundModel {
    /// The pipeline that is wanted, and what `plan` makes of its configurations; of the hub, weights are downloaded only after
    /// that.
    ///
    /// # Errors
    /// [`Failure::Model`] when there is none, or its index cannot be read; what `plan` refuses.
    pub(crate) fn find(
        wanted: ModelChoice<'_>,
        plan: PlanFor<'_>,
        session: &Session,
    ) -> Result<(Self, RunPlan), Failure> {
        let ModelChoice { name, hub, no_t5 } = wanted;
        let planned = RefCell::new(None);
        let check = |source: &ModelSource| {
            *planned.borrow_mut() = Some(plan(source)?);
            Ok(())
        };
        let (source, revision) = source(wanted, NeededFiles::Checked(&check), session)?;
        // Only the hub asks before it has all files.
        let plan = match planned.take() {
            Some(plan) => plan,
            None => plan(&source)?,
        };
        let class = ModelIndex::read(&source)?.pipeline.name().to_owned();
        let digest = digest::of(&source)?;
        let record = ModelRecord {
            name: name.to_owned(),
            revision,
            variant: hub.variant.clone(),
            no_t5,
            class,
            digest,
        };
        Ok((Self { source, record }, plan))
    }
}

/// The folder that holds the files of `name`, now or after the download; none of the demo, or where [`source`] finds
/// nothing.
pub(crate) fn folder_of(name: &str, hub: &HubArgs, environment: &Environment) -> Option<PathBuf> {
    match name {
        DEMO => None,
        folder if Path::new(folder).exists() => Some(folder.into()),
        id if is_hub_id(id) => repository(id, hub, environment),
        _ => None,
    }
}

/// The files that are wanted, and the hub's revision.
///
/// # Errors
/// [`Failure::Model`] when there are none.
pub(crate) fn source(
    wanted: ModelChoice<'_>,
    files: NeededFiles<'_>,
    session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    let (source, revision) = whole(wanted, files, session)?;
    Ok((wanted.parts(source)?, revision))
}

/// The files of the whole pipeline; T5's are not downloaded where they are not wanted.
fn whole(
    wanted: ModelChoice<'_>,
    files: NeededFiles<'_>,
    session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    let ModelChoice { name, hub, .. } = wanted;
    if name == DEMO {
        Session::refuse_hub_flags(hub, name)?;
        return Ok((demo()?, None));
    }
    if let Some(other) = name.strip_prefix("demo:") {
        let reason = format!("there is no demo {other:?}; there is one: {DEMO} (Flux)");
        return Err(not_found(name, &reason));
    }
    if Path::new(name).exists() {
        Session::refuse_hub_flags(hub, name)?;
        return Ok((ModelSource::folder(name)?, None));
    }
    if !is_hub_id(name) {
        return Err(not_found(
            name,
            "no such folder, and not a hub id (ORGANISATION/NAME)",
        ));
    }
    download(wanted, files, session)
}

#[cfg(feature = "demo")]
fn demo() -> Result<ModelSource, Failure> {
    Ok(ModelSource::demo())
}

#[cfg(not(feature = "demo"))]
fn demo() -> Result<ModelSource, Failure> {
    Err(not_found(
        DEMO,
        "this binary was built without the demo; give --model a folder or a hub id",
    ))
}

#[cfg(feature = "hub")]
use crate::run::hub::{download, repository};

#[cfg(not(feature = "hub"))]
fn repository(_name: &str, _hub: &HubArgs, _environment: &Environment) -> Option<PathBuf> {
    None
}

#[cfg(not(feature = "hub"))]
fn download(
    wanted: ModelChoice<'_>,
    _files: NeededFiles<'_>,
    _session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    let reason = "no such folder, and this binary was built without the hub";
    Err(not_found(wanted.name, reason))
}

fn not_found(model: &str, reason: &str) -> Failure {
    Failure::Model(Error::ModelNotFound {
        model: model.into(),
        reason: reason.into(),
    })
}

/// Whether the hub allows such a name: two parts of letters, digits, `-`, `_` and `.`.
fn is_hub_id(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['-', '.'])
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/')
        .is_some_and(|(organisation, name)| part(organisation) && part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids() {
        for id in ["black-forest-labs/FLUX.1-dev", "a/b", "0/9_x"] {
            assert!(is_hub_id(id), "{id}");
        }
        for no in [
            "demo", "a/b/c", "/a", "a/", "./a", "../a", "a b/c", "-a/b", "a/.b", "C:\\a", "a/b\n",
        ] {
            assert!(!is_hub_id(no), "{no:?}");
        }
    }
}
