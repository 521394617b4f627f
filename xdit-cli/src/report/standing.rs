//! How far the run is, for whoever ends it: a signal, or a failure in the middle of a prompt file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use xdit_models::quote::counted;

use crate::run::memory;

/// The work in hand and what is finished. Its lock is never held while anything is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is being done, and how many pieces of how many are finished.
    work: Option<(&'static str, u64, u64)>,
    totals: Option<BatchTotals>,
}

/// What `--prompt-file` has done.
#[derive(Clone, Debug)]
pub(crate) struct BatchTotals {
    /// When the program began.
    pub started: Instant,
    /// Files written.
    pub files: usize,
    /// Lines that were not drawn.
    pub failed: usize,
    /// Lines whose files existed.
    pub skipped: usize,
    /// Lines that there are.
    pub lines: usize,
    /// Lines that were drawn, failed or were skipped.
    pub finished: usize,
    /// Warnings about the whole run.
    pub warnings: Vec<String>,
}

impl Standing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work `name` begins.
    pub(crate) fn begin(&self, name: &'static str, total: u64) {
        self.state().work = Some((name, 0, total));
    }

    /// So much of it is finished.
    pub(crate) fn moved(&self, name: &'static str, done: u64, total: u64) {
        self.state().work = Some((name, done, total));
    }

    /// It is over.
    pub(crate) fn end(&self, name: &'static str) {
        let mut state = self.state();
        if state.work.is_some_and(|(work, ..)| work == name) {
            state.work = None;
        }
    }

    /// The run is one of a prompt file from now on.
    pub(crate) fn set_totals(&self, totals: BatchTotals) {
        self.state().totals = Some(totals);
    }

    /// Counts something.
    pub(crate) fn count(&self, count: impl FnOnce(&mut BatchTotals)) {
        if let Some(totals) = &mut self.state().totals {
            count(totals);
        }
    }

    /// What a prompt file has come to; none of a run without one.
    pub(crate) fn totals(&self) -> Option<BatchTotals> {
        self.state().totals.clone()
    }

    /// `at step 12 of 50`, or what else was being done.
    pub(crate) fn place(&self) -> Option<String> {
        let (name, done, total) = self.state().work?;
        Some(match name {
            "denoise" => format!("at step {} of {total}", (done + 1).min(total)),
            "download" => "while downloading the model".to_owned(),
            "load" => "while reading the model".to_owned(),
            "encode" => "while encoding the prompts".to_owned(),
            "decode" => "while decoding the images".to_owned(),
            _ => return None,
        })
    }
}

impl BatchTotals {
    /// As `--json` tells them.
    pub(crate) fn json(&self) -> Value {
        json!({
            "files": self.files,
            "failed": self.failed,
            "skipped": self.skipped,
            "lines": self.lines,
            "finished": self.finished,
            "seconds": self.started.elapsed().as_secs_f64(),
            "peak_memory_bytes": memory::peak_bytes(),
            "warnings": self.warnings,
        })
    }

    /// In a line.
    pub(crate) fn text(&self) -> String {
        let (files, failed) = (counted(self.files, "file"), counted(self.failed, "line"));
        let mut text = format!("{files}, {failed} failed, ");
        if self.skipped > 0 {
            text += &format!("{} skipped, ", counted(self.skipped, "line"));
        }
        match self.lines - self.finished.min(self.lines) {
            0 => {}
            rest => text += &format!("{} not drawn, ", counted(rest, "line")),
        }
        text += &format!("total {:.2} s", self.started.elapsed().as_secs_f64());
        if let Some(bytes) = memory::peak_bytes() {
            text += &format!("; peak memory {}", memory::shown(bytes));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_in_hand_is_named() {
        let standing = Standing::default();
        assert_eq!(standing.place(), None);
        standing.begin("load", 10);
        assert_eq!(standing.place().unwrap(), "while reading the model");
        standing.begin("denoise", 50);
        standing.end("load");
        assert_eq!(standing.place().unwrap(), "at step 1 of 50");
        standing.moved("denoise", 11, 50);
        assert_eq!(standing.place().unwrap(), "at step 12 of 50");
        standing.moved("denoise", 50, 50);
        assert_eq!(standing.place().unwrap(), "at step 50 of 50");
        standing.end("denoise");
        assert_eq!(standing.place(), None);
    }

    #[test]
    fn totals_say_what_was_not_drawn() {
        let mut totals = BatchTotals {
            started: Instant::now(),
            files: 1,
            failed: 2,
            skipped: 0,
            lines: 7,
            finished: 3,
            warnings: Vec::new(),
        };
        let told = totals.text();
        assert!(
            told.starts_with("1 file, 2 lines failed, 4 lines not drawn, total"),
            "{told}"
        );
        totals.finished = 7;
        assert!(totals.text().starts_with("1 file, 2 lines failed, total"));
        assert_eq!(totals.json()["finished"], 7);
    }
}
