//! The engine: one for the process. Calls queue operations; which one runs next is chosen here.
//!
//! Any thread that waits, or that queues under an eager policy, runs operations of any stream. Operations that take long run
//! without the lock, so kernels of several threads run at the same time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::OpRef;
use crate::codes::{self, Res};
use crate::config::{Config, Policy};
use crate::execute::{Order, Outcome, run};
use crate::handles::{STREAM, index};
use crate::heap::Heap;
use crate::images::Images;
use crate::pace::Pacer;
use crate::state::State;
use crate::work::{HostFunction, Sight, Work};

/// The lock on the state.
pub(crate) type Guard<'e> = MutexGuard<'e, State>;

/// What a process has one of.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Arc<Config>,
    pub(crate) heap: Heap,
    pub(crate) images: Images,
    pacer: Pacer,
    state: Mutex<State>,
    changed: Condvar,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// The engine, after `cuInit`.
pub(crate) fn engine() -> Res<&'static Engine> {
    ENGINE.get().ok_or(codes::NOT_INITIALIZED)
}

/// Makes the engine at the first call; `at_exit` runs at the end of the process.
pub(crate) fn start(at_exit: extern "C" fn()) -> &'static Engine {
    ENGINE.get_or_init(|| {
        // SAFETY: the function has the type that atexit wants, and lives as long as the process: this library is not
        // unloaded, because cudarc and the other doubles keep it open.
        unsafe { libc::atexit(at_exit) };
        let config = Arc::new(Config::from_environment());
        Engine {
            heap: Heap::new(config.devices),
            images: Images::default(),
            pacer: Pacer::new(config.pace),
            state: Mutex::new(State::new(Arc::clone(&config))),
            changed: Condvar::new(),
            config,
        }
    })
}

impl Engine {
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as the pace says; the current thread is about to queue an operation.
    pub(crate) fn before_operation(&self) {
        self.pacer.before_operation();
    }

    /// Queues an operation, and runs what the policy wants to run now.
    pub(crate) fn submit(&self, stream: usize, work: Work, label: String) -> Res<Option<OpRef>> {
        self.before_operation();
        let mut state = self.lock();
        let operation = state.enqueue(stream, work, label)?;
        self.run_some(state);
        self.wake();
        Ok(operation)
    }

    /// Threads that wait for other threads look again.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Runs what the policy wants to run after something was queued.
    pub(crate) fn run_some<'e>(&'e self, mut state: Guard<'e>) {
        loop {
            let more = match self.config.policy {
                Policy::Lazy => false,
                Policy::Eager => true,
                Policy::Random => state.draw(3) == 0,
            };
            let Some(stream) = more.then(|| state.draw_runnable()).flatten() else {
                return;
            };
            state = self.step(state, stream);
        }
    }

    /// Runs the first operation of a stream, which must be runnable.
    fn step<'e>(&'e self, mut state: Guard<'e>, stream: usize) -> Guard<'e> {
        let Some((operation, work, order)) = state.begin(stream) else {
            return state;
        };
        if let Work::Host(function) = work {
            self.call(operation, function);
            return state;
        }
        let outcome = if work.is_short() {
            Outcome::default()
        } else {
            drop(state);
            let outcome = run(&self.heap, &self.config, &work, order);
            state = self.lock();
            outcome
        };
        state.finish(&self.heap, &operation, work, outcome);
        self.changed.notify_all();
        state
    }

    /// Lets a thread call a function of the program, as a driver does: the call that queued it does not wait.
    fn call(&self, operation: OpRef, function: HostFunction) {
        let Ok(engine) = engine() else {
            return;
        };
        std::thread::spawn(move || {
            let work = Work::Host(function);
            let outcome = run(&engine.heap, &engine.config, &work, Order::Lazy);
            let mut state = engine.lock();
            state.finish(&engine.heap, &operation, work, outcome);
            engine.changed.notify_all();
        });
    }

    /// Runs until a stream has completed an operation. Of others, as few or as many run as the policy says.
    pub(crate) fn drive<'e>(&'e self, state: Guard<'e>, stream: usize, number: u64) -> Guard<'e> {
        self.drive_within(state, stream, number, self.config.patience)
    }

    /// As `drive`. A gate that stays closed for `patience` is reported and given up.
    fn drive_within<'e>(
        &'e self,
        mut state: Guard<'e>,
        stream: usize,
        number: u64,
        patience: Duration,
    ) -> Guard<'e> {
        let mut began = Instant::now();
        while state.streams[stream].done < number {
            let detour = self.config.policy == Policy::Random && state.draw(3) == 0;
            let drawn = detour.then(|| state.draw_runnable()).flatten();
            state = match drawn.or_else(|| state.towards(stream)) {
                Some(next) => {
                    began = Instant::now();
                    self.step(state, next)
                }
                None if began.elapsed() >= patience && state.give_up(stream) => state,
                // Another thread runs, or will queue, what this one waits for.
                None => {
                    let limit = Duration::from_millis(50).min(patience);
                    let wait = self.changed.wait_timeout(state, limit);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state
    }

    /// Waits for a stream; the host then knows what it did.
    pub(crate) fn finish_stream<'e>(&'e self, mut state: Guard<'e>, stream: usize) -> Guard<'e> {
        let issued = state.streams[stream].issued;
        state = self.drive(state, stream, issued);
        let clock = state.streams[stream].clock.clone();
        state.host_learns(&clock);
        state
    }

    /// Waits for an operation.
    pub(crate) fn finish_operation<'e>(&'e self, state: Guard<'e>, operation: &OpRef) -> Guard<'e> {
        let mut state = self.drive(state, operation.stream, operation.number);
        state.host_learns(operation.clock());
        state
    }

    /// `cuStreamSynchronize`.
    pub(crate) fn synchronize_stream(&self, stream: usize) -> Res {
        let mut state = self.lock();
        state.break_capture(stream)?;
        if state.streams[stream].legacy {
            let device = state.streams[stream].device;
            for other in 0..state.streams.len() {
                let queue = &state.streams[other];
                if queue.device == device && queue.blocking {
                    state = self.finish_stream(state, other);
                }
            }
        } else {
            state = self.finish_stream(state, stream);
        }
        state.take_findings()
    }

    /// `cuCtxSynchronize`.
    pub(crate) fn synchronize_device(&self, device: usize) -> Res {
        let mut state = self.lock();
        for stream in 0..state.streams.len() {
            if state.streams[stream].device == device {
                state.break_capture(stream)?;
                state = self.finish_stream(state, stream);
            }
        }
        state.take_findings()
    }

    /// Waits for an operation, and returns what was found.
    pub(crate) fn synchronize_operation(&self, operation: &OpRef) -> Res {
        let mut state = self.finish_operation(self.lock(), operation);
        state.take_findings()
    }

    /// A call that only asks makes progress sometimes, so that loops which poll end.
    pub(crate) fn poll<'e>(&'e self, mut state: Guard<'e>, stream: usize) -> Guard<'e> {
        if state.draw(2) == 0
            && let Some(next) = state.towards(stream)
        {
            state = self.step(state, next);
        }
        state
    }

    /// Runs one operation so that a stream gets on. Returns false if none can run.
    pub(crate) fn step_towards(&self, stream: usize) -> bool {
        let mut state = self.lock();
        match state.towards(stream) {
            Some(next) => {
                drop(self.step(state, next));
                true
            }
            None => false,
        }
    }

    /// Runs everything that is queued. Nothing more comes.
    pub(crate) fn finish_all(&self) -> Guard<'_> {
        let mut state = self.lock();
        for stream in 0..state.streams.len() {
            let issued = state.streams[stream].issued;
            state = self.drive_within(state, stream, issued, Duration::ZERO);
        }
        state
    }
}

impl State {
    pub(crate) fn is_done(&self, operation: &OpRef) -> bool {
        self.streams[operation.stream].done >= operation.number
    }

    fn is_runnable(&self, stream: usize) -> bool {
        let queue = &self.streams[stream];
        match queue.queue.front() {
            _ if queue.running.is_some() => false,
            None => false,
            Some((_, Work::Wait(other))) => self.is_done(other),
            Some((_, Work::Gate(gate))) => gate.sight() == Sight::Open,
            Some(_) => true,
        }
    }

    /// A stream whose first operation can run.
    fn draw_runnable(&mut self) -> Option<usize> {
        let streams = 0..self.streams.len();
        let runnable: Vec<usize> = streams.filter(|s| self.is_runnable(*s)).collect();
        if runnable.is_empty() {
            return None;
        }
        Some(runnable[self.draw(runnable.len())])
    }

    /// The stream whose first operation must run next so that `stream` gets on. `None` if another thread runs it already, if
    /// nothing is queued, or if a gate waits for what is not queued. Waits are for operations that were queued earlier, so only gates
    /// can wait for each other: that is reported, and one of them given up.
    fn towards(&mut self, stream: usize) -> Option<usize> {
        let mut at = stream;
        let mut gates: Vec<OpRef> = Vec::new();
        loop {
            let queue = &self.streams[at];
            if queue.running.is_some() {
                return None;
            }
            match queue.queue.front()? {
                (_, Work::Wait(other)) if !self.is_done(other) => at = other.stream,
                (operation, Work::Gate(gate)) => match gate.sight() {
                    Sight::Open => return Some(at),
                    Sight::Closed => return None,
                    Sight::Behind(_) if gates.iter().any(|other| Arc::ptr_eq(other, operation)) => {
                        let before = |other: &&OpRef| !Arc::ptr_eq(other, operation);
                        let circle = gates.iter().skip_while(before);
                        let circle: Vec<String> = circle.map(ToString::to_string).collect();
                        gate.given_up.store(true, Ordering::Relaxed);
                        let text =
                            format!("deadlock: {} wait for each other", circle.join(" and "));
                        self.report(codes::LAUNCH_TIMEOUT, text);
                        return Some(at);
                    }
                    Sight::Behind(other) => {
                        gates.push(operation.clone());
                        at = index(STREAM, other, self.streams.len()).ok()?;
                    }
                },
                _ => return Some(at),
            }
        }
    }

    /// Gives up the gate that keeps a stream from going on, with a report; false if there is none, or if a thread runs what may open
    /// it. Only after [`towards`](Self::towards) has found nothing.
    fn give_up(&mut self, stream: usize) -> bool {
        let mut at = stream;
        loop {
            if self.streams[at].running.is_some() {
                return false;
            }
            match self.streams[at].queue.front() {
                Some((_, Work::Wait(other))) if !self.is_done(other) => at = other.stream,
                Some((operation, Work::Gate(gate))) => {
                    let sight = gate.sight();
                    if sight == Sight::Open {
                        return false;
                    }
                    if let Sight::Behind(other) = sight
                        && let Ok(other) = index(STREAM, other, self.streams.len())
                        && other != at
                        && !self.streams[other].is_idle()
                    {
                        at = other;
                        continue;
                    }
                    gate.given_up.store(true, Ordering::Relaxed);
                    let text = format!("hang: {operation} waits for what nobody has queued");
                    self.report(codes::LAUNCH_TIMEOUT, text);
                    return true;
                }
                _ => return false,
            }
        }
    }

    /// Takes the first operation of a stream to run it: its clock is known from now on.
    fn begin(&mut self, stream: usize) -> Option<(OpRef, Work, Order)> {
        let queue = &mut self.streams[stream];
        let (operation, work) = queue.queue.pop_front()?;
        crate::clock::join(&mut queue.clock, &operation.host);
        if let Work::Wait(other) = &work {
            crate::clock::join(&mut queue.clock, other.clock());
        }
        if queue.clock.len() <= stream {
            queue.clock.resize(stream + 1, 0);
        }
        queue.clock[stream] = operation.number;
        operation.begin(queue.clock.clone());
        queue.running = Some((operation.clone(), work.clone()));
        let order = match self.config.policy {
            Policy::Eager => Order::Eager,
            Policy::Lazy => Order::Lazy,
            Policy::Random => Order::Random(self.draw(1 << 30) as u64),
        };
        Some((operation, work, order))
    }

    /// A call that waits is not possible during a capture, and ends it.
    pub(crate) fn break_capture(&mut self, stream: usize) -> Res {
        let Some(capture) = self.streams[stream].capture else {
            return Ok(());
        };
        self.captures[capture].invalid = true;
        let text = format!("a call waits for stream s{stream}, which is captured");
        self.refuse(codes::STREAM_CAPTURE_UNSUPPORTED, text)
    }
}
