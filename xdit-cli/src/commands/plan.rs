//! `xdit-cli plan`: who would compute what, and what it takes, told from the configurations alone.

use serde_json::json;
use xdit_models::Error;

use crate::args::cli::PlanArgs;
use crate::args::request;
use crate::launch::ProcessJob;
use crate::report::failure::{Failure, with_flags};
use crate::report::plan_json::Shown;
use crate::report::{console, plan_text};
use crate::run::compute::Compute;
use crate::run::draw;
use crate::run::model;
use crate::run::model_choice::{ModelChoice, NeededFiles};
use crate::run::session::Session;
use crate::run::unused;

/// Prints the plan of `generate` with these flags. Reads no weights.
///
/// # Errors
/// Any [`Failure`] with which `generate` would end before it reads weights, except for too little memory, because the plan may
/// be for another machine.
pub(crate) fn run(args: &PlanArgs, session: &Session) -> Result<u8, Failure> {
    let request = request::request(&request::of_plan(args)?)?;
    request.check()?;
    session.begin_trace()?;
    let alone = (&ProcessJob::default(), &json!(null));
    let compute = Compute::new(&args.run, &args.parallel, session, alone)?;
    compute.log_device();
    let wanted = ModelChoice::of_flags(&args.model, &args.files);
    let (source, _) = model::source(wanted, NeededFiles::Configurations, session)?;
    let variant = args.files.hub.variant.as_deref();
    // For another machine than this one there may be memory.
    let found = draw::plan(&source, variant, &request, &compute, Some(u64::MAX))?;
    let mut warnings: Vec<String> = found.warnings.iter().map(|it| with_flags(it)).collect();
    warnings.extend(compute.unused.iter().cloned());
    warnings.extend(unused::of_ranks(&args.parallel, &found, compute.threads));
    if let Err(error @ (Error::OutOfMemory { .. } | Error::DeviceOutOfMemory { .. })) =
        found.check_memory(None)
    {
        warnings.push(format!("not on this machine: {}", Failure::from(error)));
    }
    let shown = Shown {
        model: wanted.name,
        dtype: compute.dtype,
        max_drift: compute.parallel.pipefusion.max_drift,
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
