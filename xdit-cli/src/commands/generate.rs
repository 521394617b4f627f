//! `xdit-cli generate`: flags to request, request to files.

use std::time::Instant;

use serde_json::json;
use xdit_models::ModelSource;

use crate::args::cli::GenerateArgs;
use crate::args::request;
use crate::commands::batch;
use crate::commands::written::{shown, write};
use crate::output::dump::Dump;
use crate::output::files::OutputPlan;
use crate::report::console;
use crate::report::failure::Failure;
use crate::report::progress::RunObserver;
use crate::run::draw::{Compute, draw, plan as plan_of};
use crate::run::model::FoundModel;
use crate::run::model_choice::ModelChoice;
use crate::run::session::Session;
use crate::run::unused;

/// Draws the images of the flags. First refuses everything that can be refused without the model.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &GenerateArgs, session: &Session) -> Result<u8, Failure> {
    let kind = args.output.output_type;
    let flags = request::of_generate(args)?;
    let request = request::request(&flags)?.output(kind.into());
    // The lines of a prompt file are checked one by one.
    if args.prompts.prompt_file.is_none() {
        request.check()?;
    }
    let compute = Compute::new(&args.run, &args.parallel, session)?;
    // clap waives `requires` where the required flag conflicts with one that is given, as --prompt does.
    for (flag, given) in [
        ("--increment-seed", args.prompts.increment_seed),
        ("--skip-existing", args.prompts.skip_existing),
    ] {
        if given && args.prompts.prompt_file.is_none() {
            return Err(Failure::usage(format!("{flag} needs --prompt-file")));
        }
    }
    let images = request.image_count();
    let output = args.output.output.as_deref();
    let (partials, places) = (&session.partials, &session.places);
    let plan = OutputPlan::new(output, kind, images, request.seeds[0], partials, places)?;
    if plan.is_stdout() && (session.report.json || args.prompts.prompt_file.is_some()) {
        return Err(Failure::usage(
            "--output -: standard output takes 1 image and nothing else; leave out --json and --prompt-file",
        ));
    }
    if let Some(file) = &args.prompts.prompt_file {
        return batch::run(args, file, (&flags, request), &compute, &plan, session);
    }
    plan.check()?;
    let dump = match &args.output.dump {
        Some(folder) => Some(Dump::create(folder, &session.partials)?),
        None => None,
    };
    session.begin_trace()?;
    let mut watch = RunObserver::new(&session.console, dump);
    let hub = &args.files.hub;
    let plan_for =
        |source: &ModelSource| plan_of(source, hub.variant.as_deref(), &request, &compute, None);
    let wanted = ModelChoice::of_flags(&args.model, &args.files);
    let found = FoundModel::find(wanted, &plan_for, session);
    let (model, planned) = found.map_err(|failure| compute.explained(failure))?;
    let unused = unused::of_ranks(&args.parallel, &planned, compute.threads);
    let words = unused::of_words(&args.prompts.prompt, &args.call.seed);
    let of_device = compute.unused.iter().cloned();
    for warning in of_device.chain(unused).chain(words) {
        watch.warn(warning);
    }
    unused::say_seeds(&args.call.seed, &session.console);
    let drawn = draw(&model, planned, &compute, &mut watch);
    let drawn = drawn.map_err(|failure| compute.explained(failure))?;

    let write_began = Instant::now();
    let files = write(&drawn, kind, !args.output.no_metadata, &plan)?;
    tracing::info!(
        seconds = write_began.elapsed().as_secs_f64(),
        files = files.len(),
        "written"
    );
    if session.report.json {
        let mut report = drawn.report(session, &watch);
        report["files"] = json!(files);
        report["output_type"] = json!(kind.name());
        console::print_json(&report)?;
    } else if !session.report.quiet {
        let summary = drawn.summary(session, &watch);
        match plan.is_stdout() {
            true => session.console.note(&format!("standard output: {summary}")),
            false => console::print(&format!("{}: {summary}\n", shown(&files)))?,
        }
    }
    Ok(0)
}
