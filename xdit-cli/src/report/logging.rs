//! Log lines on standard error, and the trace.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use xdit_models::quote;

use crate::args::output::ReportArgs;
use crate::report::console::Console;
use crate::report::trace::{TraceFile, TraceLayer};
use crate::run::environment::Environment;

/// Sends events to standard error according to the flags and the environment, and spans to the trace if there is one.
pub(crate) fn install(
    report: &ReportArgs,
    environment: &Environment,
    console: &Console,
    trace: Option<&TraceFile>,
) {
    let (filter, complaint) = filter(report, environment);
    let console_writer = console.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(console.colors)
        .with_target(report.verbose > 1)
        .fmt_fields(quoted_fields())
        .with_writer(move || console_writer.log_writer())
        .with_filter(filter.and(Once::default()));
    let spans = trace.map(|trace| TraceLayer(trace.clone()).with_filter(trace_filter()));
    // This fails only if a subscriber exists already, and no other code installs one.
    tracing_subscriber::registry()
        .with(spans)
        .with(lines)
        .try_init()
        .ok();
    for complaint in complaint.into_iter().chain(environment.complaints()) {
        console.note(&complaint);
    }
}

/// Formats the fields of events and spans, escaped and cut, because they contain names of files and text of the hub.
fn quoted_fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|writer, field, value| {
        let text = quote::reason(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{text}"),
            name => write!(writer, "{name}={text}"),
        }
    })
    .delimited(" ")
}

/// Lets each warning through once, because components, ranks and pictures may all produce the same one.
#[derive(Debug, Default)]
struct Once(Mutex<BTreeSet<String>>);

impl<S> Filter<S> for Once {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if *event.metadata().level() != Level::WARN {
            return true;
        }
        let mut text = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            text += &format!("{field}={value:?} ");
        });
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(text)
    }
}

/// Every span of this workspace, kernels included, and nothing of other crates.
fn trace_filter() -> Targets {
    let crates = [
        "xdit_cli",
        "xdit_comm",
        "xdit_kernels",
        "xdit_models",
        "xdit_usp",
    ];
    Targets::new().with_targets(crates.map(|name| (name, LevelFilter::TRACE)))
}

/// Chooses what to log: by flags, `RUST_LOG` or `XDIT_LOGGING_LEVEL`; warnings if none is given.
fn filter(report: &ReportArgs, environment: &Environment) -> (Targets, Option<String>) {
    let level = |level: LevelFilter| Targets::new().with_default(level);
    if report.quiet {
        return (level(LevelFilter::ERROR), None);
    }
    match report.verbose {
        0 => {}
        1 => return (level(LevelFilter::INFO), None),
        2 => return (level(LevelFilter::DEBUG), None),
        _ => return (level(LevelFilter::TRACE), None),
    }
    if let Some(text) = environment.var("RUST_LOG") {
        return match text.parse::<Targets>() {
            Ok(targets) => (targets, None),
            Err(error) => {
                let complaint = format!("warning: RUST_LOG={text} is not used: {error}");
                (level(LevelFilter::WARN), Some(complaint))
            }
        };
    }
    let Some(name) = environment.var("XDIT_LOGGING_LEVEL") else {
        return (level(LevelFilter::WARN), None);
    };
    match name.to_uppercase().as_str() {
        "TRACE" => (level(LevelFilter::TRACE), None),
        "DEBUG" => (level(LevelFilter::DEBUG), None),
        "INFO" => (level(LevelFilter::INFO), None),
        "WARN" | "WARNING" => (level(LevelFilter::WARN), None),
        "ERROR" | "CRITICAL" => (level(LevelFilter::ERROR), None),
        _ => {
            let complaint = format!(
                "warning: XDIT_LOGGING_LEVEL={name} is not used: expected DEBUG, INFO, WARNING or ERROR"
            );
            (level(LevelFilter::WARN), Some(complaint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(verbose: u8, quiet: bool, pairs: &'static [(&str, &str)], level: Level) -> bool {
        let report = ReportArgs {
            json: false,
            quiet,
            verbose,
            trace: None,
            help: None,
        };
        let lookup = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|pair| pair.1.to_owned())
        };
        filter(&report, &Environment::with(lookup))
            .0
            .would_enable("xdit_models", &level)
    }

    #[test]
    fn flags_before_environment() {
        assert!(enabled(0, false, &[], Level::WARN) && !enabled(0, false, &[], Level::INFO));
        assert!(enabled(1, false, &[("RUST_LOG", "error")], Level::INFO));
        assert!(enabled(2, false, &[], Level::DEBUG) && !enabled(2, false, &[], Level::TRACE));
        assert!(!enabled(0, true, &[("RUST_LOG", "trace")], Level::WARN));
        let both = &[
            ("RUST_LOG", "xdit_models=debug"),
            ("XDIT_LOGGING_LEVEL", "ERROR"),
        ];
        assert!(enabled(0, false, both, Level::DEBUG));
        assert!(!enabled(
            0,
            false,
            &[("XDIT_LOGGING_LEVEL", "error")],
            Level::WARN
        ));
        assert!(enabled(
            0,
            false,
            &[("XDIT_LOGGING_LEVEL", "nonsense")],
            Level::WARN
        ));
        assert!(enabled(0, false, &[("RUST_LOG", "a=b=c")], Level::WARN));
    }
}
