//! Ranks whose threads wait for the next call.

use super::{
    member::Member,
    options::Options,
    state::World,
    watch::{Caller, RankEvent, Watch},
};
use crate::{Error, Group, Loss, Result};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use xdit_kernels::Device;

/// The state that a rank keeps between calls, on its own thread: thread pools, meshes over its group, caches.
///
/// The first call creates it with [`Default`]. It is lost if the rank panics or its thread is left behind.
pub trait RankState: Default + 'static {
    /// Drops everything that belongs to the group of earlier calls, such as groups split from it. Called when the last call failed
    /// and this one has a new group.
    fn group_renewed(&mut self);
}

/// Keeps no state.
impl RankState for () {
    fn group_renewed(&mut self) {}
}

/// Ranks that are threads and serve call after call. The first call starts the threads. They end when this value is dropped, which
/// waits for those that are idle, at most for the grace.
///
/// Between calls each rank keeps its thread, its [`RankState`] and its [`Group`], with the groups split from it. If a call failed, or
/// left a message or a started operation behind, the next call has a new group. No message of the old group can reach it, and all
/// later calls on the old group fail. A rank that was left behind gets another thread with a new state. The old thread ends as soon
/// as its work returns.
///
/// # Examples
/// ```
/// use xdit_comm::threads::{Caller, Options, RankState, Ranks};
/// use xdit_comm::{Error, Group};
///
/// /// The group of a rank and its neighbour.
/// #[derive(Default)]
/// struct Pair(Option<Group>);
///
/// impl RankState for Pair {
///     fn group_renewed(&mut self) {
///         self.0 = None;
///     }
/// }
///
/// let mut ranks = Ranks::new(4, Options::default());
/// let work = |group: &Group, pair: &mut Pair, _: Caller<()>| {
///     let made = match pair.0.take() {
///         Some(made) => made,
///         None => group.split(group.rank() / 2, 0)?,
///     };
///     Ok(pair.0.insert(made).rank())
/// };
/// for _ in 0..3 {
///     let places = ranks.call(work, |()| {}).into_iter().collect::<Result<Vec<_>, _>>()?;
///     assert_eq!(places, [0, 1, 0, 1]);
///     // The next call works after a call that failed.
///     let failed = ranks.call(|_, _, _: Caller<()>| Err::<(), _>(Error::other("injected")), |()| {});
///     assert!(failed.iter().all(Result::is_err));
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct Ranks<S = ()> {
    options: Options,
    /// Of each rank; none where ranks take tensors as they come.
    devices: Vec<Option<Device>>,
    /// Of each rank its idle thread; none before it is started, and after it was left behind.
    threads: Vec<Option<RankThread<S>>>,
    /// Where the ranks of the last call met, if nothing was wrong with it.
    world: Option<Arc<World>>,
}

/// The thread of a rank.
struct RankThread<S> {
    calls: Sender<RankTask<S>>,
    thread: JoinHandle<()>,
}

/// What a rank's thread does for one call.
type RankTask<S> = Box<dyn FnOnce(&mut Option<KeptRank<S>>) + Send>;

/// A rank, as its thread keeps it.
struct KeptRank<S> {
    world: Arc<World>,
    group: Group,
    state: S,
}

/// Of each rank, when it has returned.
type Outcomes<T> = Arc<Mutex<Vec<Option<Result<T>>>>>;

impl<S: RankState> Ranks<S> {
    /// Creates `world_size` ranks that take tensors as they come: a received tensor is of its sender's device, and no queue waits
    /// for another's, so tensors of a GPU must all be of one queue. Their threads are not started yet.
    pub fn new(world_size: usize, options: Options) -> Self {
        Self::over(vec![None; world_size], options)
    }

    /// Creates a rank on each of these devices. Their threads are not started yet.
    ///
    /// A device is the queue of its rank: ranks that share a GPU have forks of one device ([`Device::fork`]), and compute beside
    /// each other. A rank sends what its own queue wrote, or has waited for. A tensor that it receives is of its own device: the
    /// same memory if sender and receiver share it, otherwise a copy that is made beside what the receiver computes. The
    /// receiver's queue waits for the sender's; no thread does.
    pub fn on(devices: Vec<Device>, options: Options) -> Self {
        Self::over(devices.into_iter().map(Some).collect(), options)
    }

    fn over(devices: Vec<Option<Device>>, options: Options) -> Self {
        Self {
            options,
            threads: devices.iter().map(|_| None).collect(),
            devices,
            world: None,
        }
    }

    /// Returns the number of ranks.
    pub fn world_size(&self) -> usize {
        self.threads.len()
    }

    /// Sets the deadline and the grace of later calls.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Runs `work` on all ranks and returns the result of each rank, in rank order: [`Error::Rank`] for a rank that failed, panicked
    /// or was left behind (with the error that it returned as its source), [`Error::NoThread`] for a rank without a thread, and the
    /// error of its last group call for a rank that only lost a peer. The calling thread calls `serve` for each message that a
    /// rank sends with its [`Caller`]. The deadline of the ranks does not run while `serve` runs.
    ///
    /// It returns when the deadline and the grace have passed since the last progress of a rank, at the latest.
    pub fn call<T: Send + 'static, M: Send + 'static>(
        &mut self,
        work: impl Fn(&Group, &mut S, Caller<M>) -> Result<T> + Send + Sync + 'static,
        serve: impl FnMut(M),
    ) -> Vec<Result<T>> {
        let world_size = self.world_size();
        let world = self.world.take().filter(|world| world.begin_again());
        let world = world.unwrap_or_else(|| World::new(world_size));
        // A thread is put back when its rank has returned. If `serve` panics, none is put back, and each thread ends after its work.
        let mut threads = std::mem::take(&mut self.threads);
        self.threads.resize_with(world_size, || None);
        let outcomes: Outcomes<T> = Arc::new(Mutex::new((0..world_size).map(|_| None).collect()));
        let (sender, events) = mpsc::channel();
        let work = Arc::new(work);
        let mut started = Vec::with_capacity(world_size);
        for (rank, thread) in threads.iter_mut().enumerate() {
            let (world_of_rank, work, told) = (world.clone(), work.clone(), outcomes.clone());
            let device = self.devices[rank].clone();
            let caller = Caller(sender.clone());
            let body = move |place: &mut Option<KeptRank<S>>| {
                let outcome = run_one(&world_of_rank, rank, device, place, |group, state| {
                    work(group, state, caller.clone())
                });
                // Free the memory of the closure before the outcome is visible.
                drop(work);
                lock(&told)[rank] = Some(outcome);
                // Without a receiver, the call has already returned.
                caller.0.send(RankEvent::Returned(rank)).ok();
            };
            match hand_over(rank, thread, Box::new(body)) {
                Ok(()) => started.push(rank),
                Err(reason) => {
                    // Reported at once, so that the other ranks do not wait for the deadline.
                    world.leave(rank, Some(&format!("no thread for it: {reason}")));
                    lock(&outcomes)[rank] = Some(Err(Error::NoThread { rank, reason }));
                }
            }
        }
        drop((sender, work));
        let watch = Watch::new(self.options.deadline, self.options.grace);
        let watch = watch.run(&world, &events, serve, started);
        // Outcomes that have arrived meanwhile count. Later ones are ignored.
        let taken: Vec<_> = lock(&outcomes).iter_mut().map(Option::take).collect();
        let mut results = Vec::with_capacity(world_size);
        for (rank, (outcome, thread)) in taken.into_iter().zip(threads).enumerate() {
            results.push(match outcome {
                Some(outcome) => {
                    self.threads[rank] = thread;
                    outcome
                }
                // The rank is left behind: its thread gets no more work and ends when it returns.
                None => Err(Error::Rank {
                    rank,
                    reason: watch.loss(rank),
                    source: None,
                }),
            });
        }
        self.world = results.iter().all(Result::is_ok).then_some(world);
        results
    }
}

impl<S> Drop for Ranks<S> {
    /// Ends the threads, and waits until they have dropped what their ranks keep, such as queues of a GPU. Threads that were left
    /// behind are not among them. What those hold, such as a lock, may stop the others too, so the wait ends after the grace.
    fn drop(&mut self) {
        let threads = self.threads.drain(..).flatten();
        // All channels close before the first wait.
        let threads: Vec<JoinHandle<()>> = threads.map(|idle| idle.thread).collect();
        let own = std::thread::current().id();
        let last = Instant::now().checked_add(self.options.grace);
        let is_over = || last.is_some_and(|last| Instant::now() >= last);
        for thread in threads {
            while thread.thread().id() != own && !thread.is_finished() && !is_over() {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

impl<S> fmt::Debug for Ranks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranks")
            .field("world_size", &self.threads.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Sends work to the thread of a rank, and starts the thread if there is none. Returns the system's reason if it cannot.
fn hand_over<S: RankState>(
    rank: usize,
    thread: &mut Option<RankThread<S>>,
    mut work: RankTask<S>,
) -> std::result::Result<(), String> {
    if let Some(running) = thread {
        match running.calls.send(work) {
            Ok(()) => return Ok(()),
            // Its thread has ended.
            Err(returned) => work = returned.0,
        }
    }
    let (sender, receiver) = mpsc::channel();
    let started = std::thread::Builder::new()
        .name(format!("rank {rank}"))
        .spawn(move || serve_calls(&receiver));
    let started = started.map_err(|e| e.to_string())?;
    sender
        .send(work)
        .map_err(|_| "it ended at once".to_owned())?;
    *thread = Some(RankThread {
        calls: sender,
        thread: started,
    });
    Ok(())
}

/// The loop of a rank's thread: runs one call after another, until the channel is closed.
fn serve_calls<S>(calls: &Receiver<RankTask<S>>) {
    let mut place = None;
    while let Ok(work) = calls.recv() {
        work(&mut place);
    }
}

/// Nothing panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs this rank's part of a call that meets in `world`.
fn run_one<S: RankState, T>(
    world: &Arc<World>,
    rank: usize,
    device: Option<Device>,
    place: &mut Option<KeptRank<S>>,
    work: impl Fn(&Group, &mut S) -> Result<T>,
) -> Result<T> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let place = enter(world, rank, device, place);
        work(&place.group, &mut place.state)
    }));
    let panicked = outcome.is_err();
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("without a message");
        Err(Error::Kernel(format!("panicked: {text}")))
    });
    let outcome = match outcome {
        Ok(value) => {
            world.leave(rank, None);
            Ok(value)
        }
        // An error that another rank caused is passed on unchanged.
        Err(e @ (Error::PeerLost { .. } | Error::Disagree { .. } | Error::Deadlock(_))) => {
            world.leave(rank, Some(&e.to_string()));
            Err(e)
        }
        Err(e) => {
            let reason = e.to_string();
            world.leave(rank, Some(&reason));
            let source = match e {
                Error::Other(own) => Some(own),
                _ if panicked => None,
                error => Some(error.into()),
            };
            Err(Error::Rank {
                rank,
                reason: Loss::Failed(reason),
                source,
            })
        }
    };
    if panicked {
        // Dropping a half-changed state may panic again. The first panic has already been reported.
        catch_unwind(AssertUnwindSafe(|| drop(place.take()))).ok();
    }
    outcome
}

/// Returns the rank with its state after the last call, or with a new group.
fn enter<'a, S: RankState>(
    world: &Arc<World>,
    rank: usize,
    device: Option<Device>,
    place: &'a mut Option<KeptRank<S>>,
) -> &'a mut KeptRank<S> {
    let on_new_group = |state| KeptRank {
        world: world.clone(),
        group: Group::new(Box::new(Member::of_world(world.clone(), rank, device))),
        state,
    };
    let entered = match place.take() {
        None => on_new_group(S::default()),
        Some(kept) if Arc::ptr_eq(&kept.world, world) => kept,
        Some(mut kept) => {
            kept.state.group_renewed();
            on_new_group(kept.state)
        }
    };
    place.insert(entered)
}
