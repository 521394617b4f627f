//! The operations that are under way, and the thread that moves them while the rank computes.

use super::ffi::{Comm, Library, MpiResult, MpiStep, Operation};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often the thread calls MPI while something is under way and the rank does not wait for it. MPI moves data only within calls.
/// A call without news takes about a microsecond, so the thread uses less than a hundredth of a core.
const PROGRESS: Duration = Duration::from_micros(200);

/// How often a thread that waits for a new communicator looks whether the transport has been aborted.
const LOOK: Duration = Duration::from_millis(5);

/// What all groups of this process share.
///
/// One lock orders the calls that start and test operations. Such a call waits for nobody, so the lock is held for the time of a copy
/// at most. Only making a communicator waits for other ranks: it runs on a thread of its own, without the lock, and is the reason why
/// MPI_THREAD_SERIALIZED is not enough.
#[derive(Debug)]
pub(super) struct MpiEngine {
    state: Mutex<MpiState>,
    changed: Condvar,
    aborted: AtomicBool,
}

#[derive(Debug)]
struct MpiState {
    /// None when MPI is about to be finalised.
    library: Option<Arc<Library>>,
    under_way: BTreeMap<u64, StepsUnderWay>,
    next: u64,
    /// Counts the calls of the ranks, each of which moves everything.
    calls: u64,
    /// The error of an operation for which nobody waits.
    failure: Option<String>,
}

/// Operations that were started together.
#[derive(Debug)]
struct StepsUnderWay {
    operations: Vec<Operation>,
    /// Whether somebody will ask for them.
    wanted: bool,
    failure: Option<String>,
}

impl StepsUnderWay {
    fn test(&mut self, library: &Library) {
        if self.failure.is_none() {
            let results = self.operations.iter_mut().map(|op| library.test(op));
            self.failure = results.filter_map(Result::err).next();
        }
    }

    fn has_ended(&self) -> bool {
        self.failure.is_some() || self.operations.iter().all(Operation::is_done)
    }
}

/// How far operations that were started together have come.
#[derive(Debug)]
pub(super) enum MpiProgress {
    UnderWay,
    /// All have ended, or one has failed.
    Ended(Vec<Operation>, MpiResult<()>),
}

const ABORTED: &str = "it has been aborted after a failure of the group";

impl MpiEngine {
    pub(super) fn new(library: Library) -> Self {
        Self {
            state: Mutex::new(MpiState {
                library: Some(Arc::new(library)),
                under_way: BTreeMap::new(),
                next: 0,
                calls: 0,
                failure: None,
            }),
            changed: Condvar::new(),
            aborted: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MpiState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Returns the state and MPI, if it may be called.
    fn enter(&self) -> MpiResult<(MutexGuard<'_, MpiState>, Arc<Library>)> {
        if self.is_aborted() {
            return Err(ABORTED.to_owned());
        }
        let state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let library = state.library.clone().ok_or("MPI has been finalised")?;
        Ok((state, library))
    }

    /// Starts operations, and returns their number.
    pub(super) fn begin(&self, comm: &Arc<Comm>, steps: Vec<MpiStep>) -> MpiResult<u64> {
        let (mut state, library) = self.enter()?;
        let started = library.free_unused().and_then(|()| {
            let started = steps.into_iter().map(|step| library.begin(comm, step));
            started.collect::<MpiResult<Vec<_>>>()
        });
        let operations = match started {
            Ok(operations) => operations,
            Err(error) => {
                // Other ranks wait for those that did not start.
                state.failure = Some(error.clone());
                return Err(error);
            }
        };
        let number = state.next;
        state.next += 1;
        state.calls += 1;
        let mut steps = StepsUnderWay {
            operations,
            wanted: true,
            failure: None,
        };
        steps.test(&library);
        let moves = !steps.has_ended();
        state.under_way.insert(number, steps);
        drop(state);
        if moves {
            self.changed.notify_all();
        }
        Ok(number)
    }

    /// Returns how far operations have come. It is not called again after they have ended.
    pub(super) fn poll(&self, number: u64) -> MpiResult<MpiProgress> {
        let (mut state, library) = self.enter()?;
        state.calls += 1;
        let Some(steps) = state.under_way.get_mut(&number) else {
            return Err("it has ended before".to_owned());
        };
        steps.test(&library);
        if !steps.has_ended() {
            return Ok(MpiProgress::UnderWay);
        }
        let steps = state.under_way.remove(&number);
        drop(state);
        Ok(steps.map_or(MpiProgress::UnderWay, |steps| {
            MpiProgress::Ended(steps.operations, steps.failure.map_or(Ok(()), Err))
        }))
    }

    /// Nobody will ask for these operations. They run to their end.
    pub(super) fn forget(&self, number: u64) {
        let mut state = self.lock();
        if let Some(steps) = state.under_way.get_mut(&number) {
            steps.wanted = false;
        }
        state.sweep();
    }

    /// Makes the communicator of the ranks that pass the same color, as [`Library::split`] does, for up to `limit`, and while
    /// `goes_on`.
    pub(super) fn split(
        &self,
        whole: Option<Arc<Comm>>,
        (color, key): (usize, usize),
        limit: Duration,
        goes_on: impl Fn() -> bool,
    ) -> MpiResult<Comm> {
        let (state, library) = self.enter()?;
        drop(state);
        let (done, made) = mpsc::channel();
        // After a failure it never returns, and ends with the process.
        let wait = move || drop(done.send(library.split(whole.as_deref(), color, key)));
        let thread = thread::Builder::new().name("mpi split".to_owned());
        let thread = thread.spawn(wait).map_err(|error| error.to_string())?;
        let began = Instant::now();
        loop {
            match made.recv_timeout(LOOK) {
                Ok(comm) => {
                    // It has nothing left to do but to give `library` back.
                    return thread
                        .join()
                        .map_or(Err("its thread panicked".to_owned()), |()| comm);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err("its thread panicked".to_owned());
                }
                Err(mpsc::RecvTimeoutError::Timeout) if self.is_aborted() => {
                    return Err(ABORTED.to_owned());
                }
                Err(mpsc::RecvTimeoutError::Timeout) if !goes_on() => {
                    self.abort();
                    return Err(ABORTED.to_owned());
                }
                Err(mpsc::RecvTimeoutError::Timeout) if began.elapsed() > limit => {
                    let seconds = limit.as_secs_f64();
                    return Err(format!("not all ranks take part within {seconds:.1} s"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// No call waits any more, and none calls MPI.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        // The thread has either seen this before it waits, or waits already.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits until everything has ended, for up to `limit`, and lets nothing new begin. Returns MPI.
    pub(super) fn finish(&self, limit: Duration) -> MpiResult<Arc<Library>> {
        let began = Instant::now();
        loop {
            let (mut state, library) = self.enter()?;
            state.test_all(&library);
            if state.under_way.values().all(StepsUnderWay::has_ended) {
                // What failed has ended for this rank only.
                let mut steps = state.under_way.values();
                if let Some(failure) = steps.find_map(|steps| steps.failure.clone()) {
                    return Err(failure);
                }
                state.under_way.clear();
                library.free_unused()?;
                state.library = None;
                self.changed.notify_all();
                return Ok(library);
            }
            drop(state);
            if began.elapsed() > limit {
                let seconds = limit.as_secs_f64();
                return Err(format!(
                    "what other ranks wait for does not end within {seconds:.1} s"
                ));
            }
            thread::sleep(PROGRESS);
        }
    }

    /// Starts the thread that calls MPI while the rank does not.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(super) fn drive(self: &Arc<Self>) -> MpiResult<JoinHandle<()>> {
        let engine = self.clone();
        let thread = thread::Builder::new().name("mpi".to_owned());
        let thread = thread.spawn(move || engine.run());
        thread.map_err(|error| format!("no thread: {error}"))
    }

    fn run(&self) {
        let mut state = self.lock();
        while state.library.is_some() && !self.is_aborted() {
            let idle = state.under_way.values().all(StepsUnderWay::has_ended);
            let calls = state.calls;
            state = match idle {
                true => self.changed.wait(state),
                false => {
                    let waited = self.changed.wait_timeout(state, PROGRESS);
                    waited
                        .map(|(state, _)| state)
                        .map_err(|error| PoisonError::new(error.into_inner().0))
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
            let Some(library) = state.library.clone().filter(|_| !self.is_aborted()) else {
                return;
            };
            if calls == state.calls {
                state.test_all(&library);
                state.sweep();
            }
        }
    }
}

impl MpiState {
    fn test_all(&mut self, library: &Library) {
        self.under_way
            .values_mut()
            .for_each(|steps| steps.test(library));
    }

    /// Drops what has ended and nobody asks for.
    fn sweep(&mut self) {
        let failure = &mut self.failure;
        self.under_way.retain(|_, steps| {
            let drop = !steps.wanted && steps.has_ended();
            if drop && failure.is_none() {
                failure.clone_from(&steps.failure);
            }
            !drop
        });
    }
}
