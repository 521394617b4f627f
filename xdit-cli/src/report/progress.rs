//! Observes a run: bars, the time of each phase and step, warnings, the dump.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use serde_json::{Map, Value};
use xdit_kernels::Tensor;
use xdit_models::{Observer, Phase, PhaseEvent, Result, StepEnd};

use crate::output::dump::Dump;
use crate::report::bar::{Bar, Unit};
use crate::report::console::Console;
use crate::report::failure::with_flags;

/// The observed data of one run.
#[derive(Debug)]
pub(crate) struct RunObserver {
    console: Console,
    dump: Option<Dump>,
    bar: Option<Bar>,
    /// The phase that has begun and not ended.
    open: Option<&'static str>,
    phase_began: Instant,
    step_began: Instant,
    /// The seconds of each phase, by its name.
    pub seconds: BTreeMap<&'static str, f64>,
    /// The seconds of each denoising step.
    pub step_seconds: Vec<f64>,
    /// The warnings.
    pub warnings: Vec<String>,
}

/// The names of the phases in their order.
pub(crate) const PHASES: [&str; 4] = ["load", "encode", "denoise", "decode"];

impl RunObserver {
    /// Creates an observer that draws on `console` and writes to `dump`.
    pub(crate) fn new(console: &Console, dump: Option<Dump>) -> Self {
        let now = Instant::now();
        Self {
            console: console.clone(),
            dump,
            bar: None,
            open: None,
            phase_began: now,
            step_began: now,
            seconds: BTreeMap::new(),
            step_seconds: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Prints one line on standard error, and adds it to the report, only once.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.console.warn(None, &text);
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// Returns the seconds of each phase so far, in order.
    pub(crate) fn phases(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        PHASES
            .iter()
            .filter_map(|name| Some((*name, *self.seconds.get(name)?)))
    }

    /// Returns the same as JSON.
    pub(crate) fn seconds_json(&self) -> Map<String, Value> {
        self.phases()
            .map(|(name, seconds)| (name.to_owned(), seconds.into()))
            .collect()
    }

    fn end_phase(&mut self, name: &'static str) {
        (self.bar, self.open) = (None, None);
        *self.seconds.entry(name).or_default() += self.phase_began.elapsed().as_secs_f64();
    }
}

fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Load => PHASES[0],
        Phase::Encode => PHASES[1],
        Phase::Denoise => PHASES[2],
        Phase::Decode => PHASES[3],
        _ => "other",
    }
}

impl Observer for RunObserver {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        let name = name_of(phase);
        match event {
            PhaseEvent::Start { total } => {
                // A phase that lost a rank begins again.
                if let Some(open) = self.open.replace(name) {
                    self.end_phase(open);
                    self.open = Some(name);
                }
                self.phase_began = Instant::now();
                self.step_began = self.phase_began;
                let unit = match phase {
                    Phase::Load => Unit::Bytes,
                    _ if total > 1 => Unit::Pieces,
                    _ => Unit::Unknown,
                };
                self.bar = None;
                self.bar = Some(Bar::new(&self.console, name, total, unit));
            }
            PhaseEvent::Advance { done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(total);
                    bar.set_position(done);
                }
            }
            PhaseEvent::End => self.end_phase(name),
            _ => {}
        }
    }

    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        let now = Instant::now();
        let seconds = now.duration_since(self.step_began).as_secs_f64();
        tracing::debug!(
            step = step.index + 1,
            of = step.total,
            timestep = step.timestep,
            seconds,
            "step"
        );
        self.step_seconds.push(seconds);
        self.step_began = now;
        ControlFlow::Continue(())
    }

    fn wants_tensors(&self) -> bool {
        self.dump.is_some()
    }

    fn tensor(&mut self, name: &str, make: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        match &mut self.dump {
            Some(dump) => dump.tensor(name, &make()?),
            None => Ok(()),
        }
    }

    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        if let Some(dump) = &mut self.dump {
            dump.ids(name, ids);
        }
    }

    fn warning(&mut self, text: &str) {
        self.warn(with_flags(text));
    }
}
