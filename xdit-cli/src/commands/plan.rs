//! `xdit-cli plan`: who would compute what, and what it takes, told from the configurations alone.

use serde_json::json;
use xdit_models::{Error, LoadOptions, Pipeline};

use crate::args::cli::PlanArgs;
use crate::args::request;
use crate::report::failure::Failure;
use crate::report::plan_json::Shown;
use crate::report::{console, plan_text};
use crate::run::model;
use crate::run::model_choice::{ModelChoice, NeededFiles};
use crate::run::session::Session;

/// Prints the plan of `generate` with these flags. Reads no weights.
///
/// # Errors
/// Any [`Failure`] with which `generate` would end before it reads weights, except for too little memory, because the plan may
/// be for another machine.
pub(crate) fn run(args: &PlanArgs, session: &Session) -> Result<u8, Failure> {
    let request = request::request(&request::of_plan(args)?)?;
    request::check(&request)?;
    session.begin_trace()?;
    let device = args.run.device.open(args.run.threads.cpu_tier)?;
    let parallel = args.parallel.plan()?;
    let wanted = ModelChoice::new(&args.model);
    let (source, _) = model::source(wanted, NeededFiles::Configurations, session)?;
    let dtype = args.run.dtype.into();
    let options = LoadOptions {
        dtype,
        device,
        variant: args.model.hub.variant.clone(),
        memory_limit: Some(u64::MAX),
        ..LoadOptions::default()
    };
    let found = Pipeline::plan(&source, &options, &request, &parallel)?;
    let mut warnings = Vec::new();
    if let Err(error @ Error::OutOfMemory { .. }) = found.check_memory(None) {
        warnings.push(format!("not on this machine: {error}"));
    }
    let shown = Shown {
        model: wanted.name,
        dtype,
        max_drift: parallel.pipefusion.max_drift,
        plan: &found,
        schedule: args.show_schedule.map(|steps| {
            let (stages, steps) = (found.stages.len(), steps.into());
            found.schedule.draw(found.placement, stages, steps)
        }),
    };
    for warning in &warnings {
        session.console.warn(None, warning);
    }
    match session.report.json {
        true => {
            let mut object = shown.json();
            object["warnings"] = json!(warnings);
            console::print_json(&object)?;
        }
        false => console::print(&plan_text::text(&shown))?,
    }
    Ok(0)
}
