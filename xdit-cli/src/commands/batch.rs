//! `xdit-cli generate --prompt-file`: many requests, each result written as soon as it is there.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use xdit_models::{ModelSource, Observer, Output, Overlay, Request, RunPlan, StepEnd, quote};

use crate::args::cli::GenerateArgs;
use crate::args::output::OutputFormat;
use crate::args::prompt_file::{self, PromptLine};
use crate::commands::written::{shown, write};
use crate::output::files::OutputPlan;
use crate::report::bar::{Bar, Unit};
use crate::report::console;
use crate::report::failure::{self, Failure};
use crate::report::progress::RunObserver;
use crate::report::standing::BatchTotals;
use crate::run::draw::{Compute, Drawn, load, plan};
use crate::run::last_resort;
use crate::run::model::FoundModel;
use crate::run::model_choice::ModelChoice;
use crate::run::session::Session;
use crate::run::unused;

/// Characters of a prompt that a line on standard output shows.
const SHOWN: usize = 60;

/// What is seen of one request.
#[derive(Debug)]
struct RequestObserver {
    number: usize,
    began: Instant,
    warnings: Vec<String>,
    /// Counts the steps of all requests.
    bar: Bar,
    /// The request's steps that are not done.
    steps: u64,
}

impl Observer for RequestObserver {
    fn step_end(&mut self, _: &StepEnd<'_>) -> ControlFlow<()> {
        self.bar.inc(1);
        self.steps = self.steps.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn warning(&mut self, text: &str) {
        self.warnings.push(failure::with_flags(text));
    }
}

/// Draws every line of the file; `flags` say what lines do not, and make the request `base`. Returns 0 if all were drawn, 1 if some were not; each of those is told in a line.
///
/// # Errors
/// Any [`Failure`] that concerns the whole file.
pub(crate) fn run(
    args: &GenerateArgs,
    path: &Path,
    (flags, base): (&Overlay, Request),
    compute: &Compute,
    plan: &OutputPlan,
    session: &Session,
) -> Result<u8, Failure> {
    let lines = prompt_file::read(path, flags, args.prompts.increment_seed)?;
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
    session.begin_trace()?;
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
        each: each(compute),
        fatal: None,
    };
    // Without a line to draw, no model is read or downloaded.
    let ended = match report.take_lines_to_draw(lines, args.prompts.skip_existing) {
        Ok(requests) if requests.is_empty() => Ok(()),
        Ok(requests) => draw_all(args, requests, base, compute, &mut report),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ended {
        report.fatal.get_or_insert(compute.explained(failure));
    }
    report.close()
}

/// Finds and loads the model, and draws the requests of these lines.
fn draw_all(
    args: &GenerateArgs,
    requests: Vec<(usize, Request)>,
    base: Request,
    compute: &Compute,
    report: &mut BatchReport<'_>,
) -> Result<(), Failure> {
    let session = report.session;
    let hub = &args.files.hub;
    let base = any_line(base);
    let plan_for = |source: &ModelSource| plan_any(source, hub.variant.as_deref(), &base, compute);
    let wanted = ModelChoice::of_flags(&args.model, &args.files);
    let (model, planned) = FoundModel::find(wanted, &plan_for, session)?;
    let mut watch = RunObserver::new(&session.console, None);
    let degrees = compute.parallel.degrees;
    let of_ranks = [
        unused::crowded(degrees.product().unwrap_or(usize::MAX), compute.threads),
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
    each.parallel.degrees.cfg = 1;
    // Lines may be smaller than the pictures that the model was made for.
    plan(source, variant, base, &each, Some(u64::MAX))
}

/// What is told of the requests as they end.
struct BatchReport<'a> {
    kind: OutputFormat,
    metadata: bool,
    path: &'a Path,
    plan: &'a OutputPlan,
    session: &'a Session,
    /// How each request is computed: by one replica.
    each: Compute,
    /// What ends the run: nothing can be written any more.
    fatal: Option<Failure>,
}

impl BatchReport<'_> {
    /// The lines to draw. Bad lines, and those whose files exist, are told first and in one go: they cost nothing.
    fn take_lines_to_draw(
        &mut self,
        lines: Vec<PromptLine>,
        skip_existing: bool,
    ) -> Result<Vec<(usize, Request)>, Failure> {
        let mut requests = Vec::with_capacity(lines.len());
        for PromptLine { number, request } in lines {
            match request {
                Ok(request) => {
                    let place = (number, request.seeds[0]);
                    let plan = (self.plan).for_line(place, request.image_count(), self.kind);
                    match plan.existing().filter(|_| skip_existing) {
                        Some(files) => self.skipped(number, &files)?,
                        None => requests.push((number, request.output(self.kind.into()))),
                    }
                }
                Err(reason) => self.failed(number, &reason)?,
            }
        }
        Ok(requests)
    }

    /// Writes the files of a request and says so.
    fn done(
        &mut self,
        model: &FoundModel,
        output: Output,
        seen: RequestObserver,
    ) -> Result<(), Failure> {
        for warning in &seen.warnings {
            let place = self.place(seen.number);
            self.session.console.warn(Some(&place), warning);
        }
        let drawn = Drawn::new(model, &self.each, output);
        let seed = drawn.record.request.seeds[0];
        let plan = self
            .plan
            .for_line((seen.number, seed), drawn.record.images, self.kind);
        let files = write(&drawn, self.kind, self.metadata, &plan)?;
        self.session.console.standing.count(|totals| {
            totals.files += files.len();
            totals.finished += 1;
        });
        let seconds = seen.began.elapsed().as_secs_f64();
        self.say(
            &json!({
                "line": seen.number,
                "files": files,
                "request": drawn.record.request,
                "seconds": seconds,
                "warnings": seen.warnings,
                "ranks": drawn.ranks(),
                "pipefusion": drawn.pipefusion(),
            }),
            &line(&files, &drawn.record.request.prompt, drawn.patches()),
        )
    }

    /// Says that the files of a line exist.
    fn skipped(&mut self, number: usize, files: &[PathBuf]) -> Result<(), Failure> {
        self.session.console.standing.count(|totals| {
            totals.skipped += 1;
            totals.finished += 1;
        });
        self.say(
            &json!({"line": number, "files": files, "skipped": true}),
            &format!("{}: exists, skipped", shown(files)),
        )
    }

    /// Says why a line was not drawn; the others go on.
    fn failed(&mut self, number: usize, reason: &str) -> Result<(), Failure> {
        self.session.console.standing.count(|totals| {
            totals.failed += 1;
            totals.finished += 1;
        });
        let place = self.place(number);
        self.session
            .console
            .error_line(&format!("error: {place}: {reason}"));
        match self.session.report.json {
            true => self.say(&json!({"line": number, "error": reason}), ""),
            false => Ok(()),
        }
    }

    fn place(&self, number: usize) -> String {
        match self.path == Path::new("-") {
            true => format!("standard input, line {number}"),
            false => format!("{}:{number}", failure::shown(self.path)),
        }
    }

    fn say(&self, value: &Value, text: &str) -> Result<(), Failure> {
        let (json, quiet) = (self.session.report.json, self.session.report.quiet);
        self.session.console.above_bars(|| match (json, quiet) {
            (true, _) => console::print_json_line(value),
            (false, true) => Ok(()),
            (false, false) => console::print(&format!("{}\n", quote::line(text))),
        })
    }

    /// The closing line, whatever ended the run, and the exit code.
    fn close(&mut self) -> Result<u8, Failure> {
        let Some(totals) = self.session.console.standing.totals() else {
            return Ok(0);
        };
        if !last_resort::is_first_to_tell() {
            // A signal has said it.
            return Ok(1);
        }
        if let Some(unread @ Failure::Stdout(_)) =
            self.fatal.take_if(|it| matches!(it, Failure::Stdout(_)))
        {
            return Err(unread);
        }
        let fatal = self.fatal.take().map(|failure| {
            let message = quote::line(&failure.to_string());
            self.session
                .console
                .error_line(&format!("error: {message}"));
            (message, failure.exit_code())
        });
        let mut object = totals.json();
        if let Some((message, code)) = &fatal {
            object["error"] = json!({"message": message, "exit_code": code});
        }
        self.say(&object, &totals.text())?;
        Ok(fatal.map_or(u8::from(totals.failed > 0), |(_, code)| code))
    }
}

/// `a.png: the prompt`, shortened, and what was measured.
fn line(files: &[PathBuf], prompt: &[String], measured: Option<String>) -> String {
    let first = prompt.first().map_or("", String::as_str);
    let mut text: String = first.chars().take(SHOWN).collect();
    if first.chars().nth(SHOWN).is_some() {
        text.push('…');
    }
    if let Some(measured) = measured {
        text += &format!("; {measured}");
    }
    format!("{}: {text}", shown(files))
}
