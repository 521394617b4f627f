//! NCCL's work of one rank: its calls, and the thread that gets it on while the rank does something else.

use super::{
    ffi::{Communicator, Launch, NcclFunctions, NcclResult, UniqueId},
    options::NcclOptions,
    slots::{NcclArrivals, NcclSlots},
};
use crate::processes::world::TransportAlarm;
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use xdit_kernels::{Device, Event};

/// How often something is polled that is in progress.
pub(super) const LOOK: Duration = Duration::from_micros(200);
/// How often NCCL is asked whether it has failed.
const CHECK: Duration = Duration::from_millis(20);
const ABORTED: &str = "it has been aborted after a failure of the group";

/// What the groups of a rank share.
#[derive(Debug)]
pub(super) struct NcclEngine {
    pub(super) functions: NcclFunctions,
    /// NCCL works there, and what arrives lies in its memory.
    pub(super) queue: Device,
    /// The host reads there what it reduces, so that it waits for nothing else. Made when it is first needed.
    pub(super) reader: OnceLock<Device>,
    options: NcclOptions,
    state: Mutex<NcclState>,
    changed: Condvar,
    aborted: AtomicBool,
}

#[derive(Debug)]
struct NcclState {
    slots: NcclSlots,
    failure: Option<String>,
    /// Since when the rank leaves.
    leaving: Option<Instant>,
}

impl NcclEngine {
    fn lock(&self) -> MutexGuard<'_, NcclState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls NCCL, unless it has failed before. A failure is kept.
    fn enter<T>(&self, call: impl FnOnce(&mut NcclSlots) -> NcclResult<T>) -> NcclResult<T> {
        if self.aborted.load(Ordering::Acquire) {
            return Err(ABORTED.to_owned());
        }
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let called = call(&mut state.slots);
        if let Err(error) = &called {
            state.failure = Some(error.clone());
        }
        called
    }

    /// Takes care of a communicator; its number.
    pub(super) fn adopt(&self, comm: Communicator) -> NcclResult<usize> {
        self.enter(|slots| Ok(slots.add(comm)))
    }

    /// Starts a batch, and returns its number.
    pub(super) fn begin(&self, comm: usize, ready: Event, launch: Launch) -> NcclResult<u64> {
        let (number, is_launching) = self.enter(|slots| {
            let number = slots.push(comm, ready, launch);
            slots.advance()?;
            Ok((number, slots.is_launching()))
        })?;
        if is_launching {
            self.changed.notify_all();
        }
        Ok(number)
    }

    /// Returns what a batch brings, once it is in the queue, and `wait` allows it.
    pub(super) fn poll(
        &self,
        number: u64,
        wait: impl Fn(&Event) -> bool,
    ) -> NcclResult<Option<NcclArrivals>> {
        self.enter(|slots| {
            slots.advance()?;
            match slots.arrivals(number) {
                Some(arrivals) if !wait(&arrivals.done) => Ok(slots.take(number)),
                _ => Ok(None),
            }
        })
    }

    /// Nobody will ask for this batch.
    pub(super) fn forget(&self, number: u64) {
        self.lock().slots.forget(number);
    }

    /// No group uses this communicator any more.
    pub(super) fn release(&self, comm: usize) {
        self.lock().slots.release(comm);
        self.changed.notify_all();
    }

    /// Repeats a call until it returns something, within the deadline.
    fn repeat<T>(
        &self,
        mut call: impl FnMut(&mut NcclSlots) -> NcclResult<Option<T>>,
    ) -> NcclResult<T> {
        let began = Instant::now();
        loop {
            if let Some(done) = self.enter(&mut call)? {
                return Ok(done);
            }
            if began.elapsed() > self.options.deadline {
                return self.enter(|_| Err(self.options.late()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until a batch is in the queue.
    pub(super) fn await_launch(&self, number: u64) -> NcclResult<NcclArrivals> {
        self.repeat(|slots| {
            slots.advance()?;
            Ok(slots.take(number))
        })
    }

    /// Makes the communicator of a part of the ranks. All ranks of `parent` call it, and wait for each other.
    pub(super) fn split(&self, parent: usize, color: usize, key: usize) -> NcclResult<usize> {
        // Batches first that were started before.
        self.repeat(|slots| {
            slots.advance()?;
            if slots.is_launching() || !slots.comm(parent)?.poll()? {
                return Ok(None);
            }
            slots.splitting = true;
            slots.comm(parent)?.split(color, key).map(Some)
        })?;
        let mut child = self.repeat(|slots| match slots.comm(parent)?.poll()? {
            true => slots.comm(parent)?.child().map(Some),
            false => Ok(None),
        })?;
        self.repeat(|_| Ok(child.poll()?.then_some(())))?;
        self.enter(|slots| {
            slots.splitting = false;
            Ok(slots.add(child))
        })
    }

    /// Makes the communicator of the ranks that have this id, which wait for each other.
    pub(super) fn join(&self, place: (usize, usize), id: UniqueId) -> NcclResult<usize> {
        let mut comm = Communicator::join(self.functions, &self.queue, place, id)?;
        self.repeat(|_| Ok(comm.poll()?.then_some(())))?;
        self.adopt(comm)
    }

    /// Whatever is under way soon ends.
    pub(super) fn abort(&self) {
        // Without the lock. If the thread is just about to wait, it looks soon.
        self.aborted.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// What the thread does, until the rank has left or everything was aborted.
    fn run(&self, alarm: &TransportAlarm) {
        self.get_on(alarm);
        let mut state = self.lock();
        let left = || "the rank has left the group".to_owned();
        state.failure.get_or_insert_with(left);
        let all = state.slots.take_all();
        // Nobody waits for the lock while NCCL ends.
        drop(state);
        drop(all);
    }

    fn get_on(&self, alarm: &TransportAlarm) {
        let mut state = self.lock();
        let mut checked = Instant::now();
        loop {
            if self.aborted.load(Ordering::Acquire) {
                return;
            }
            if let Some(since) = state.leaving {
                let is_over = state.failure.is_some() || since.elapsed() > self.options.grace;
                if is_over || !state.slots.is_closing() && !state.slots.is_launching() {
                    return;
                }
            }
            let NcclState { slots, failure, .. } = &mut *state;
            let mut got_on = Ok(());
            if failure.is_none() {
                got_on = slots.advance().and_then(|()| slots.close());
                if checked.elapsed() >= CHECK {
                    checked = Instant::now();
                    got_on = got_on.and_then(|()| slots.check());
                }
            }
            let is_busy = slots.is_launching() || slots.is_closing();
            if let Err(error) = got_on {
                *failure = Some(error.clone());
                let is_leaving = state.leaving.is_some();
                drop(state);
                if !is_leaving {
                    // The rank may wait for its GPU: then nobody else tells the group.
                    alarm.raise(&format!("NCCL: {error}"));
                }
                state = self.lock();
                continue;
            }
            let limit = if is_busy { LOOK } else { CHECK };
            let waited = self.changed.wait_timeout(state, limit);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The engine, and its thread. When it is dropped, the rank leaves.
#[derive(Debug)]
pub(super) struct NcclOwner {
    engine: Arc<NcclEngine>,
    thread: Option<JoinHandle<()>>,
}

impl NcclOwner {
    pub(super) fn start(
        functions: NcclFunctions,
        queue: Device,
        options: NcclOptions,
        alarm: TransportAlarm,
    ) -> NcclResult<Self> {
        let engine = Arc::new(NcclEngine {
            functions,
            state: Mutex::new(NcclState {
                slots: NcclSlots::new(queue.clone()),
                failure: None,
                leaving: None,
            }),
            queue,
            reader: OnceLock::new(),
            options,
            changed: Condvar::new(),
            aborted: AtomicBool::new(false),
        });
        let own = engine.clone();
        let thread = std::thread::Builder::new().name("nccl".to_owned());
        let thread = thread.spawn(move || own.run(&alarm));
        Ok(Self {
            engine,
            thread: Some(thread.map_err(|error| format!("no thread: {error}"))?),
        })
    }

    pub(super) fn engine(&self) -> &Arc<NcclEngine> {
        &self.engine
    }
}

impl Drop for NcclOwner {
    /// Other ranks may still receive what this one has started.
    fn drop(&mut self) {
        let mut state = self.engine.lock();
        state.leaving = Some(Instant::now());
        state.slots.release_all();
        drop(state);
        self.engine.changed.notify_all();
        // The thread itself may have been the last to use a transport.
        let thread = self.thread.take();
        let other = thread.filter(|thread| thread.thread().id() != std::thread::current().id());
        let limit = self.engine.options.grace + Duration::from_secs(5);
        let began = Instant::now();
        if let Some(thread) = other {
            // NCCL may hang: then its thread is left behind.
            while !thread.is_finished() && began.elapsed() < limit {
                std::thread::sleep(LOOK);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}
