//! Finds the pipeline that `--model` names: the demo inside the binary, a folder, or a repository of the hub.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use xdit_models::{Error, ModelIndex, ModelSource, RunPlan};

use crate::launch::ProcessJob;
use crate::output::record::ModelRecord;
use crate::report::failure::Failure;
use crate::run::digest;
use crate::run::model_choice::{DEMO, ModelChoice, ModelPlace, NeededFiles};
use crate::run::session::Session;

/// Plans a run from the configurations of a pipeline, or returns why it is impossible.
pub(crate) type PlanFor<'a> = &'a dyn Fn(&ModelSource) -> xdit_models::Result<RunPlan>;

/// A pipeline that was found.
#[derive(Debug)]
pub(crate) struct FoundModel {
    /// Its files.
    pub source: ModelSource,
    /// The facts with which a later run finds the pipeline again.
    pub record: ModelRecord,
}

impl FoundModel {
    /// Finds the pipeline, and plans the run with its configurations. Weights are downloaded from the hub only after that, by one
    /// process of each host.
    ///
    /// # Collective
    /// Every rank of the job calls it, if ranks are processes.
    ///
    /// # Errors
    /// [`Failure::Model`] if the pipeline does not exist, or its index cannot be read; the errors of `plan`.
    pub(crate) fn find(
        wanted: ModelChoice<'_>,
        plan: PlanFor<'_>,
        session: &Session,
        job: &ProcessJob,
    ) -> Result<(Self, RunPlan), Failure> {
        let ModelChoice { name, hub, no_t5 } = wanted;
        let planned = RefCell::new(None);
        let check = |source: &ModelSource| {
            *planned.borrow_mut() = Some(plan(source)?);
            Ok(())
        };
        let whole = |is_later: bool| {
            session.cache_only.store(is_later, Ordering::Relaxed);
            source(wanted, NeededFiles::Checked(&check), session)
        };
        let is_hub = matches!(ModelPlace::of(name), ModelPlace::Hub(_));
        let (source, revision) = match job.world().filter(|_| is_hub) {
            Some(world) => world.first_of_host(whole)?,
            None => whole(false)?,
        };
        // Only the hub calls `plan` before all files exist.
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

/// Returns the wanted files, and the hub's revision.
///
/// # Errors
/// [`Failure::Model`] if they do not exist.
pub(crate) fn source(
    wanted: ModelChoice<'_>,
    files: NeededFiles<'_>,
    session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    let (source, revision) = whole(wanted, files, session)?;
    Ok((wanted.parts(source)?, revision))
}

/// Returns the files of the whole pipeline. The files of T5 are not downloaded if they are not wanted.
fn whole(
    wanted: ModelChoice<'_>,
    files: NeededFiles<'_>,
    session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    match ModelPlace::of(wanted.name) {
        ModelPlace::Demo => {
            wanted.refuse_hub_flags()?;
            Ok((demo()?, None))
        }
        ModelPlace::Folder(folder) => {
            wanted.refuse_hub_flags()?;
            Ok((ModelSource::folder(folder)?, None))
        }
        ModelPlace::Hub(_) => download(wanted, files, session),
        ModelPlace::Nowhere if wanted.name.starts_with("demo:") => {
            let reason = format!("the only demo is --model {DEMO}, a small Flux");
            Err(not_found(wanted.name, &reason))
        }
        ModelPlace::Nowhere => {
            let reason = "no such folder, and not a hub id (ORGANISATION/NAME)";
            Err(not_found(wanted.name, reason))
        }
    }
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
use crate::run::hub::download;

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
