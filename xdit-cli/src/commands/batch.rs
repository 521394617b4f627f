//! `xdit-cli generate --prompt-file`: many requests, each result written as soon as it is there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use xdit_models::{ModelSource, Overlay, Parallel, Request, RunPlan};

use crate::args::cli::GenerateArgs;
use crate::args::prompt_file::{self, PromptLine};
use crate::commands::batch_report::{BatchReport, RequestObserver};
use crate::launch::{ProcessJob, RankWorld};
use crate::output::files::OutputPlan;
use crate::report::bar::{Bar, Unit};
use crate::report::failure::Failure;
use crate::report::progress::RunObserver;
use crate::report::standing::BatchTotals;
use crate::run::compute::Compute;
use crate::run::draw::{load, plan};
use crate::run::model::FoundModel;
use crate::run::model_choice::ModelChoice;
use crate::run::session::Session;
use crate::run::unused;

/// Draws every line of the file; `flags` say what lines do not, and make the request `base`. Returns 0 if all were drawn, 1 if some
/// were not; each of those is told in a line. Of ranks that are processes, rank 0 reads the file.
///
/// # Errors
/// Any [`Failure`] that concerns the whole file.
pub(crate) fn run(
    args: &GenerateArgs,
    path: &Path,
    (flags, base): (&Overlay, Request),
    compute: Compute,
    plan: Option<&OutputPlan>,
    (session, job): (&Session, &ProcessJob),
) -> Result<u8, Failure> {
    let bytes = bytes_of(path, job)?;
    let lines = prompt_file::lines(path, &bytes, flags, args.prompts.increment_seed)?;
    job.agree(begin(args, &lines, plan, session), |()| String::new())?;
    session.console.standing.set_totals(BatchTotals {
        started: session.started,
        files: 0,
        failed: 0,
        skipped: 0,
        lines: lines.len(),
        finished: 0,
        warnings: Vec::new(),
    });
    let mut report = BatchReport {
        kind: args.output.output_type,
        metadata: !args.output.no_metadata,
        path,
        plan,
        session,
        each: each(&compute),
        fatal: None,
    };
    let requests = report.take_lines_to_draw(lines, args.prompts.skip_existing);
    let requests = requests.and_then(|requests| of_rank_0(requests, job));
    // Without a line to draw, no model is read or downloaded.
    let ended = match requests {
        Ok(requests) if requests.is_empty() => Ok(()),
        Ok(requests) => {
            let mut compute = compute;
            let drawn = draw_all(args, requests, base, &mut compute, &mut report, job);
            drawn.map_err(|failure| compute.explained(failure))
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ended {
        report.fatal.get_or_insert(failure);
    }
    let (code, failed) = report.close()?;
    job.note_failure(failed);
    Ok(code)
}

/// Reads the file, on rank 0 for all ranks.
fn bytes_of(path: &Path, job: &ProcessJob) -> Result<Vec<u8>, Failure> {
    let Some(world) = job.world() else {
        return prompt_file::bytes(path, prompt_file::MOST_BYTES);
    };
    let read = match job.speaks() {
        true => world.rest(|| prompt_file::bytes(path, RankWorld::MOST_BYTES)),
        false => Ok(Vec::new()),
    };
    let bytes = world.agree(read, |_| String::new())?;
    world.bytes_of_rank_0(&bytes)
}

/// Those of the requests that rank 0 wants to draw.
fn of_rank_0(
    requests: Vec<(usize, Request)>,
    job: &ProcessJob,
) -> Result<Vec<(usize, Request)>, Failure> {
    let Some(world) = job.world() else {
        return Ok(requests);
    };
    let numbers = requests.iter().map(|(number, _)| *number as u64);
    let numbers: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    let numbers = world.bytes_of_rank_0(&numbers)?;
    let wanted: BTreeSet<u64> = numbers
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
        .collect();
    let mut requests = requests;
    requests.retain(|(number, _)| wanted.contains(&(*number as u64)));
    Ok(requests)
}

/// Tries the places of all files, and begins the trace.
fn begin(
    args: &GenerateArgs,
    lines: &[PromptLine],
    plan: Option<&OutputPlan>,
    session: &Session,
) -> Result<(), Failure> {
    let Some(plan) = plan else {
        return Ok(());
    };
    let requests = lines
        .iter()
        .filter_map(|line| Some((line.number, line.request.as_ref().ok()?)));
    for (index, (number, request)) in requests.enumerate() {
        let (kind, images) = (args.output.output_type, request.image_count());
        let plan = plan.for_line((number, request.seeds[0]), images, kind);
        // Lines have one folder: it is tried once.
        match index {
            0 => plan.check()?,
            _ => plan.check_names()?,
        }
    }
    session.begin_trace()
}

/// Finds and loads the model, and draws the requests of these lines.
fn draw_all(
    args: &GenerateArgs,
    requests: Vec<(usize, Request)>,
    base: Request,
    compute: &mut Compute,
    report: &mut BatchReport<'_>,
    job: &ProcessJob,
) -> Result<(), Failure> {
    let session = report.session;
    let hub = &args.files.hub;
    let base = any_line(base);
    let plan_for = |source: &ModelSource| plan_any(source, hub.variant.as_deref(), &base, compute);
    let wanted = ModelChoice::of_flags(&args.model, &args.files);
    let found = FoundModel::find(wanted, &plan_for, session, job);
    let (model, planned) = job.agree(found, |(model, _)| model.record.digest.clone())?;
    compute.arrange(&planned, job)?;
    report.each = each(compute);
    let compute = &*compute;
    let mut watch = RunObserver::new(&session.console, None);
    let degrees = compute.parallel.degrees;
    let of_ranks = [
        unused::crowded(
            degrees.product().unwrap_or(usize::MAX),
            compute.all_threads(),
        ),
        unused::idle_replicas(degrees.data, requests.len(), "line"),
    ];
    let unused = of_ranks.into_iter().flatten();
    let unused = compute.unused.iter().cloned().chain(unused);
    for warning in unused.chain(unused::of_words(&[], &args.call.seed)) {
        watch.warn(warning);
    }
    unused::say_seeds(&args.call.seed, &session.console);
    let pipeline = load(&model, compute, &mut watch)?;
    (session.console.standing).count(|totals| totals.warnings = watch.warnings.clone());
    let steps = |request: &Request| {
        let sigmas = request.sigmas.as_ref().map(Vec::len);
        let steps = sigmas.or(request.num_inference_steps);
        steps.unwrap_or(planned.schedule.steps) as u64
    };
    let total = requests.iter().map(|(_, request)| steps(request));
    let total = total.fold(0, u64::saturating_add);
    let bar = Bar::new(&session.console, "denoise", total, Unit::Pieces);
    let requests = requests.into_iter().map(|(number, request)| {
        let seen = RequestObserver {
            number,
            began: Instant::now(),
            warnings: Vec::new(),
            bar: bar.clone(),
            steps: steps(&request),
        };
        (request, seen)
    });
    pipeline.generate_each(requests, |_, result, seen| {
        // What a line that fails leaves undone is not waited for.
        seen.bar.inc(seen.steps);
        let told = match result {
            Ok(output) => report.done(&model, output, seen),
            // Other weights than those that were loaded: no line can be drawn any more.
            Err(_) if pipeline.check_files().is_err() => {
                pipeline.check_files().map_err(Failure::from)
            }
            // The ranks cannot draw another line together.
            Err(error) if compute.is_over() => Err(Failure::from(error)),
            Err(error) => {
                let failure = compute.explained(Failure::from(error));
                report.failed(seen.number, &failure.to_string())
            }
        };
        match told {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                report.fatal = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    Ok(())
}

/// How each request is computed: by one replica.
fn each(compute: &Compute) -> Compute {
    let mut each = compute.clone();
    each.parallel.degrees.data = 1;
    each
}

/// The request of the flags as far as all lines have it: arguments that a line may yet set so that the whole can be served are left
/// out.
fn any_line(flags: Request) -> Request {
    let any = |list: Option<Vec<String>>| list.map(|_| vec!["any".to_owned()]);
    let mut request = flags.num_images_per_prompt(1).seed(0);
    request.prompt = vec!["any".to_owned()];
    request.prompt_2 = any(request.prompt_2);
    request.prompt_3 = any(request.prompt_3);
    request.negative_prompt = any(request.negative_prompt);
    // Without the first negative prompt it may be refused.
    request.negative_prompt_2 =
        any(request.negative_prompt_2).filter(|_| request.negative_prompt.is_some());
    request.negative_prompt_3 = any(request.negative_prompt_3);
    (request.height, request.width) = (None, None);
    (request.num_inference_steps, request.max_sequence_length) = (None, None);
    request
}

/// What no line can have is refused before any weight is read: stages, a number of patches, arguments that the model has no
/// use for. Which numbers of patches a line can have depends on its size, whether there is guidance on its scale.
fn plan_any(
    source: &ModelSource,
    variant: Option<&str>,
    base: &Request,
    compute: &Compute,
) -> xdit_models::Result<RunPlan> {
    let mut each = each(compute);
    let patches = &mut each.parallel.pipefusion.patches;
    *patches = Some(patches.unwrap_or(1).min(1));
    // No rank draws this plan.
    each.parallel = Parallel::threads(each.parallel.degrees).pipefusion(each.parallel.pipefusion);
    each.parallel.degrees.cfg = 1;
    // Lines may be smaller than the pictures that the model was made for.
    plan(source, variant, base, &each, Some(u64::MAX))
}
