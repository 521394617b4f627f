//! Loses a rank at a chosen step. The product has no hook for that: a rank enters a span at each step, and the subscriber of these
//! tests is where its thread ends or stops.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Where a rank is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// At the beginning of its part of a step.
    Step(u64),
    /// When it begins to decode.
    Decode,
}

/// How.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Panics,
    /// Its thread does nothing more, until [`Armed`] is dropped.
    Stops,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    rank: usize,
    at: At,
    how: How,
}

#[derive(Debug, Default)]
struct Faults {
    armed: Mutex<Option<Fault>>,
    /// Whether a stopped thread may go on.
    over: Mutex<bool>,
    /// The rank whose pipeline is being loaded, and the compute threads of those that were.
    loading: Mutex<Option<usize>>,
    owners: Mutex<HashMap<ThreadId, usize>>,
    changed: Condvar,
}

/// What a rank panics with.
pub(crate) const LOST: &str = "lost by a test";

static FAULTS: OnceLock<Faults> = OnceLock::new();
/// One test at a time: the subscriber sees the threads of all.
static ONE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No other test loses ranks while it lives.
pub(crate) struct Armed {
    _alone: MutexGuard<'static, ()>,
}

impl Armed {
    /// Makes the subscriber that of the process.
    pub(crate) fn new() -> Self {
        let one = lock(&ONE);
        if FAULTS.get().is_none() {
            FAULTS.get_or_init(Faults::default);
            tracing::subscriber::set_global_default(Losing).expect("the only subscriber");
            let others = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // It is meant, and happens hundreds of times.
                let payload = panic.payload();
                let text = payload.downcast_ref::<String>().map(String::as_str);
                if text.or_else(|| payload.downcast_ref().copied()) != Some(LOST) {
                    others(panic);
                }
            }));
        }
        Self { _alone: one }
    }

    /// Loses `rank` once, at the next such point.
    pub(crate) fn lose(&self, rank: usize, at: At, how: How) {
        let faults = FAULTS.get().expect("made by `new`");
        *lock(&faults.over) = false;
        *lock(&faults.armed) = Some(Fault { rank, at, how });
    }

    /// Loads the pipeline of one rank of a group, whose compute thread then counts as the rank's.
    pub(crate) fn loading<T>(&self, rank: usize, load: impl FnOnce() -> T) -> T {
        let faults = FAULTS.get().expect("made by `new`");
        *lock(&faults.loading) = Some(rank);
        let loaded = load();
        *lock(&faults.loading) = None;
        loaded
    }

    /// Whether the rank was lost.
    pub(crate) fn happened(&self) -> bool {
        FAULTS
            .get()
            .is_some_and(|faults| lock(&faults.armed).is_none())
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if let Some(faults) = FAULTS.get() {
            *lock(&faults.armed) = None;
            *lock(&faults.over) = true;
            faults.changed.notify_all();
        }
    }
}

struct Losing;

/// The field `index` of a span.
#[derive(Default)]
struct Index(Option<u64>);

impl Visit for Index {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "index" {
            self.0 = Some(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// The rank whose thread this is, or one of the threads of its pool.
fn rank_here(faults: &Faults) -> Option<usize> {
    let thread = std::thread::current();
    if let Some(rank) = lock(&faults.owners).get(&thread.id()) {
        return Some(*rank);
    }
    let rank = thread.name()?.strip_prefix("rank ")?;
    let digits = rank.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

impl Subscriber for Losing {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && ["load", "step", "decode"].contains(&metadata.name())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let faults = FAULTS.get().expect("there before the subscriber");
        if span.metadata().name() == "load" {
            if let Some(rank) = *lock(&faults.loading) {
                lock(&faults.owners).insert(std::thread::current().id(), rank);
            }
            return Id::from_u64(1);
        }
        let mut index = Index::default();
        span.record(&mut index);
        let at = match index.0 {
            Some(step) => At::Step(step),
            None => At::Decode,
        };
        let fault = {
            let mut armed = lock(&faults.armed);
            let here = |fault: &Fault| fault.at == at && Some(fault.rank) == rank_here(faults);
            armed.take_if(|fault| here(fault))
        };
        match fault.map(|fault| fault.how) {
            Some(How::Panics) => panic!("{LOST}"),
            Some(How::Stops) => {
                let over = lock(&faults.over);
                let wait = faults.changed.wait_while(over, |over| !*over);
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
            None => {}
        }
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
