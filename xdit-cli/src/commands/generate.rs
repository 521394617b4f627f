//! `xdit-cli generate`: flags to request, request to files.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xdit_kernels::DType;
use xdit_models::{ModelSource, Request};

use crate::args::cli::GenerateArgs;
use crate::args::request;
use crate::commands::batch;
use crate::commands::written::{shown, write};
use crate::launch::ProcessJob;
use crate::output::dump::Dump;
use crate::output::files::OutputPlan;
use crate::report::console;
use crate::report::failure::Failure;
use crate::report::progress::RunObserver;
use crate::run::compute::Compute;
use crate::run::draw::{draw, plan as plan_of};
use crate::run::model::FoundModel;
use crate::run::model_choice::ModelChoice;
use crate::run::session::Session;
use crate::run::survivors::{self, Survivors};
use crate::run::unused;

/// Draws the images of the flags. First refuses everything that can be refused without the model.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &GenerateArgs, session: &Session, job: &ProcessJob) -> Result<u8, Failure> {
    let kind = args.output.output_type;
    let flags = request::of_generate(args)?;
    let request = request::request(&flags)?.output(kind.into());
    // The lines of a prompt file are checked one by one.
    if args.prompts.prompt_file.is_none() {
        request.check()?;
    }
    if args.prompts.prompt_file.is_some()
        && args.parallel.data_parallel_degree > 1
        && job.place().is_some()
    {
        return Err(Failure::usage(
            "--data-parallel-degree with --prompt-file divides lines among threads of one process: leave it out, or start a job \
             for each part of the file",
        ));
    }
    // clap waives `requires` where the required flag conflicts with one that is given, as --prompt does.
    for (flag, given) in [
        ("--increment-seed", args.prompts.increment_seed),
        ("--skip-existing", args.prompts.skip_existing),
    ] {
        if given && args.prompts.prompt_file.is_none() {
            return Err(Failure::usage(format!("{flag} needs --prompt-file")));
        }
    }
    let line = survivors::line(args, session, job)?;
    let what = what(args, &request);
    let mut compute = Compute::new(&args.run, &args.parallel, session, (job, &what))?;
    // Only a rank that writes files has a plan for them.
    let plan = match job.speaks() {
        true => output_plan(args, &request, session).map(Some),
        false => Ok(None),
    };
    if let Some(file) = &args.prompts.prompt_file {
        let plan = job.agree(plan, |_| String::new())?;
        let rest = (session, job);
        return batch::run(args, file, (&flags, request), compute, plan.as_ref(), rest);
    }
    let opened = plan.and_then(|plan| Ok((open(args, plan.as_ref(), session, job)?, plan)));
    let (dump, plan) = job.agree(opened, |_| String::new())?;
    let mut watch = RunObserver::new(&session.console, dump);
    let hub = &args.files.hub;
    let plan_for = |source: &ModelSource, compute: &Compute| {
        plan_of(source, hub.variant.as_deref(), &request, compute, None)
    };
    let wanted = ModelChoice::of_flags(&args.model, &args.files);
    let found = FoundModel::find(wanted, &|source| plan_for(source, &compute), session, job);
    let found = found.map_err(|failure| compute.explained(failure));
    let (model, mut planned) = job.agree(found, |(model, _)| model.record.digest.clone())?;
    if job.world().is_some() {
        compute.arrange(&planned, job)?;
        planned = plan_for(&model.source, &compute)?;
    }
    let unused = unused::of_ranks(&args.parallel, &planned, compute.all_threads());
    let words = unused::of_words(&args.prompts.prompt, &args.call.seed);
    let of_device = compute.unused.iter().cloned();
    for warning in of_device.chain(unused).chain(words) {
        watch.warn(warning);
    }
    unused::say_seeds(&args.call.seed, &session.console);
    let drawn = match line {
        None => draw(&model, planned, &compute, &mut watch, job).map(Some),
        Some(line) => {
            // What is in memory already need not find room again.
            let whatever = Some(u64::MAX);
            let variant = hub.variant.as_deref();
            let ranks = Survivors {
                model: &model,
                job,
                line,
                what,
                limit: Duration::from_secs(args.parallel.rank_timeout),
                environment: &session.environment,
                plan: &|compute| plan_of(&model.source, variant, &request, compute, whatever),
            };
            ranks.draw(planned, &mut compute, &mut watch)
        }
    };
    let drawn = drawn.map_err(|failure| compute.explained(failure))?;
    // Where the first rank was lost, another one writes.
    let plan = match plan {
        None if job.speaks() => Some(output_plan(args, &request, session)?),
        plan => plan,
    };
    let (Some(drawn), Some(plan)) = (drawn, plan) else {
        return Ok(0);
    };

    let write_began = Instant::now();
    let files = job.rest(|| write(&drawn, kind, !args.output.no_metadata, &plan))?;
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

/// What processes that run together must have in common.
fn what(args: &GenerateArgs, request: &Request) -> Value {
    json!({
        "request": request,
        "model": args.model.model,
        "prompt_file": args.prompts.prompt_file,
        "output_type": args.output.output_type.name(),
        "dtype": DType::from(args.run.dtype).to_string(),
        "low_memory": args.run.low_memory,
        "allow_tf32": args.run.allow_tf32,
        "ranks": args.parallel,
    })
}

/// Chooses the files of the results.
fn output_plan(
    args: &GenerateArgs,
    request: &Request,
    session: &Session,
) -> Result<OutputPlan, Failure> {
    let kind = args.output.output_type;
    let (output, images) = (args.output.output.as_deref(), request.image_count());
    let (partials, places) = (&session.partials, &session.places);
    let plan = OutputPlan::new(output, kind, images, request.seeds[0], partials, places)?;
    if plan.is_stdout() && (session.report.json || args.prompts.prompt_file.is_some()) {
        return Err(Failure::usage(
            "--output -: standard output takes 1 image and nothing else; leave out --json and --prompt-file",
        ));
    }
    Ok(plan)
}

/// Tries the places of results, and opens the dump and the trace. A silent rank has none of them.
fn open(
    args: &GenerateArgs,
    plan: Option<&OutputPlan>,
    session: &Session,
    job: &ProcessJob,
) -> Result<Option<Dump>, Failure> {
    if let Some(plan) = plan {
        plan.check()?;
    }
    let folder = args.output.dump.as_ref().filter(|_| job.speaks());
    let dump = folder.map(|folder| Dump::create(folder, &session.partials));
    let dump = dump.transpose()?;
    session.begin_trace()?;
    Ok(dump)
}
