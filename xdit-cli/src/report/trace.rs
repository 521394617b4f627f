//! `--trace`: the spans of `tracing` as a file for chrome://tracing and ui.perfetto.dev.
//!
//! Format: "Trace Event Format", the JSON object form with complete events (`ph` = `X`), times in microseconds. `pid`
//! is the node (0), `tid` the order in which threads first entered a span (0 = main); later ranks take their place.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::output::partial::{Existing, PartialFile, Partials};
use crate::report::failure::Failure;

/// A trace that is being written, after it has begun. Clones write the same file. [`TraceFile::finish`] gives it its name, as
/// valid JSON, for any end of the run.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceFile(Arc<Mutex<Option<Open>>>);

#[derive(Debug)]
struct Open {
    partial: PartialFile,
    writer: BufWriter<File>,
    threads: HashMap<ThreadId, usize>,
    started: Instant,
    events: usize,
    /// The first error. After it the file is incomplete.
    failed: Option<std::io::Error>,
}

impl TraceFile {
    /// Begins the trace for `path`. Times are counted from `started`.
    ///
    /// # Errors
    /// [`Failure::Output`] if `path` cannot be written.
    pub(crate) fn begin(
        &self,
        path: &Path,
        started: Instant,
        partials: &Partials,
    ) -> Result<(), Failure> {
        let mut partial = PartialFile::create(path, partials)?;
        let failed = |e: std::io::Error| Failure::unwritable(path, &e);
        let file = partial.file().try_clone().map_err(failed)?;
        let mut open = Open {
            partial,
            writer: BufWriter::with_capacity(1 << 16, file),
            threads: HashMap::new(),
            started,
            events: 0,
            failed: None,
        };
        open.write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
        open.event(&json!({"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "xdit-cli"}}));
        open.thread();
        *self.lock() = Some(open);
        Ok(())
    }

    /// Closes the JSON and gives the file its name. Later spans are not recorded. A second call does nothing.
    ///
    /// # Errors
    /// [`Failure::Output`] if the disk is or was full, or the file cannot be renamed.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let Some(mut open) = self.lock().take() else {
            return Ok(());
        };
        open.write("\n]}\n");
        let written = match open.failed.take() {
            Some(error) => Err(error),
            None => open.writer.flush(),
        };
        written.map_err(|e| Failure::unwritable(open.partial.target(), &e))?;
        open.partial.commit(Existing::Replace).map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Returns the number of the current thread. The first call also writes its name.
    fn thread(&mut self) -> usize {
        let thread = std::thread::current();
        if let Some(&tid) = self.threads.get(&thread.id()) {
            return tid;
        }
        let tid = self.threads.len();
        self.threads.insert(thread.id(), tid);
        let name = thread
            .name()
            .map_or_else(|| format!("worker {tid}"), str::to_owned);
        self.event(&json!({"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": name}}));
        tid
    }

    fn event(&mut self, event: &Value) {
        let separator = if self.events == 0 { "\n" } else { ",\n" };
        self.events += 1;
        self.write(&format!("{separator}{event}"));
    }

    /// Writes `text`, unless an earlier write failed, because a file with a gap must not get its name.
    fn write(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = self.writer.write_all(text.as_bytes()).err();
        }
    }
}

/// The layer that records every span.
#[derive(Debug)]
pub(crate) struct TraceLayer(pub TraceFile);

/// The fields of a span, and the times when threads entered it.
struct SpanFields(Map<String, Value>);
struct Entered(Vec<(ThreadId, Instant)>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TraceLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = SpanFields(Map::new());
            attributes.record(&mut fields);
            let mut extensions = span.extensions_mut();
            extensions.insert(fields);
            extensions.insert(Entered(Vec::new()));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(fields);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(entered) = span.extensions_mut().get_mut::<Entered>()
        {
            entered
                .0
                .push((std::thread::current().id(), Instant::now()));
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let end = Instant::now();
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let me = std::thread::current().id();
        let Some(entered) = extensions.get_mut::<Entered>() else {
            return;
        };
        let Some(at) = entered.0.iter().rposition(|(thread, _)| *thread == me) else {
            return;
        };
        let start = entered.0.swap_remove(at).1;
        let arguments = extensions
            .get_mut::<SpanFields>()
            .map(|fields| fields.0.clone());
        let mut lock = self.0.lock();
        let Some(open) = lock.as_mut() else { return };
        let tid = open.thread();
        let begin = start.saturating_duration_since(open.started);
        open.event(&json!({
            "ph": "X",
            "name": span.name(),
            "cat": span.metadata().target(),
            "pid": 0,
            "tid": tid,
            "ts": begin.as_nanos() as f64 / 1e3,
            "dur": end.saturating_duration_since(start).as_nanos() as f64 / 1e3,
            "args": arguments.unwrap_or_default(),
        }));
    }
}

impl Visit for SpanFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.0.insert(field.name().into(), text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_of_all_threads_are_valid_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let trace = TraceFile::default();
        trace.finish().unwrap();
        trace
            .begin(&path, Instant::now(), &Partials::default())
            .unwrap();
        let subscriber = tracing_subscriber::registry().with(TraceLayer(trace.clone()));
        let dispatch = tracing::Dispatch::new(subscriber);
        tracing::dispatcher::with_default(&dispatch, || {
            let _outer = tracing::info_span!("denoise", step = 3, note = "a \"b\"\n").entered();
            tracing::trace_span!("linear", m = 2u64, x = 0.5).in_scope(|| ());
        });
        let other = dispatch.clone();
        std::thread::spawn(move || {
            tracing::dispatcher::with_default(&other, || {
                tracing::info_span!("tile").in_scope(|| ())
            });
        })
        .join()
        .unwrap();
        let unfinished =
            tracing::dispatcher::with_default(&dispatch, || tracing::info_span!("never closed"));
        assert!(!path.exists());
        trace.finish().unwrap();
        trace.finish().unwrap();
        drop(unfinished);

        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        let named = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
        assert_eq!(
            named("denoise")["args"],
            json!({"step": 3, "note": "a \"b\"\n"})
        );
        assert_eq!(named("linear")["args"], json!({"m": 2, "x": 0.5}));
        assert_eq!(named("linear")["tid"], 0);
        assert_eq!(named("tile")["tid"], 1);
        let (inner, outer) = (named("linear"), named("denoise"));
        let end = |e: &Value| e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap();
        assert!(inner["ts"].as_f64() >= outer["ts"].as_f64() && end(inner) <= end(outer) + 1e-3);
    }
}
