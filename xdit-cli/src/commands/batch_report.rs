//! What `generate --prompt-file` tells and writes of each line.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use xdit_models::{Observer, Output, Request, StepEnd, quote};

use crate::args::output::OutputFormat;
use crate::args::prompt_file::PromptLine;
use crate::commands::written::{shown, write};
use crate::output::files::OutputPlan;
use crate::report::bar::Bar;
use crate::report::console;
use crate::report::failure::{self, Failure};
use crate::run::compute::Compute;
use crate::run::draw::Drawn;
use crate::run::last_resort;
use crate::run::model::FoundModel;
use crate::run::session::Session;

/// Characters of a prompt that a line on standard output shows.
const SHOWN: usize = 60;

/// What is seen of one request.
#[derive(Debug)]
pub(super) struct RequestObserver {
    /// The line.
    pub number: usize,
    /// When it began.
    pub began: Instant,
    /// What was warned of.
    pub warnings: Vec<String>,
    /// Counts the steps of all requests.
    pub bar: Bar,
    /// The request's steps that are not done.
    pub steps: u64,
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

/// What is told of the requests as they end.
pub(super) struct BatchReport<'a> {
    /// What files contain.
    pub kind: OutputFormat,
    /// Whether files record how they were made.
    pub metadata: bool,
    /// The prompt file.
    pub path: &'a Path,
    /// The files. A silent rank writes none.
    pub plan: Option<&'a OutputPlan>,
    /// The run.
    pub session: &'a Session,
    /// How each request is computed: by one replica.
    pub each: Compute,
    /// What ends the run: nothing can be written any more.
    pub fatal: Option<Failure>,
}

impl BatchReport<'_> {
    /// The lines to draw. Bad lines, and those whose files exist, are told first and in one go: they cost nothing. A silent rank
    /// does not know which files exist.
    pub(super) fn take_lines_to_draw(
        &mut self,
        lines: Vec<PromptLine>,
        skip_existing: bool,
    ) -> Result<Vec<(usize, Request)>, Failure> {
        let mut requests = Vec::with_capacity(lines.len());
        for PromptLine { number, request } in lines {
            match request {
                Ok(request) => {
                    let place = (number, request.seeds[0]);
                    let plan = self.plan.filter(|_| skip_existing);
                    let plan = plan.map(|it| it.for_line(place, request.image_count(), self.kind));
                    match plan.and_then(|plan| plan.existing()) {
                        Some(files) => self.skipped(number, &files)?,
                        None => requests.push((number, request.output(self.kind.into()))),
                    }
                }
                Err(reason) => self.failed(number, &reason)?,
            }
        }
        Ok(requests)
    }

    /// Writes the files of a request and says so, unless this rank is silent.
    pub(super) fn done(
        &mut self,
        model: &FoundModel,
        output: Output,
        seen: RequestObserver,
    ) -> Result<(), Failure> {
        let Some(plan) = self.plan else {
            return Ok(());
        };
        for warning in &seen.warnings {
            let place = self.place(seen.number);
            self.session.console.warn(Some(&place), warning);
        }
        let drawn = Drawn::new(model, &self.each, output);
        let seed = drawn.record.request.seeds[0];
        let plan = plan.for_line((seen.number, seed), drawn.record.images, self.kind);
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
    pub(super) fn failed(&mut self, number: usize, reason: &str) -> Result<(), Failure> {
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

    /// The closing line, whatever ended the run. Returns the exit code, and what ended the run if it was told here.
    pub(super) fn close(&mut self) -> Result<(u8, Option<String>), Failure> {
        let Some(totals) = self.session.console.standing.totals() else {
            return Ok((0, None));
        };
        if !last_resort::is_first_to_tell() {
            // A signal has said it.
            return Ok((1, None));
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
                .above_bars(|| console::tell_error(&message, &failure));
            (message, failure.exit_code())
        });
        let mut object = totals.json();
        if let Some((message, code)) = &fatal {
            object["error"] = json!({"message": message, "exit_code": code});
        }
        self.say(&object, &totals.text())?;
        Ok(match fatal {
            Some((message, code)) => (code, Some(message)),
            None => (u8::from(totals.failed > 0), None),
        })
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
