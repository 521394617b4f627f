//! Ranks as threads of one process: tensors change hands without a copy.
//!
//! **A thread cannot be stopped from outside**, so that a rank which never returns (an endless loop, a thread that a debugger
//! holds) is *left behind*: the caller goes on without it, within the deadline and [`Options::grace`]. Its thread runs on and keeps
//! what it holds: its share of the closure, its tensors, a core if it loops. Every later call on its group fails with
//! [`Error::PeerLost`], so that it ends as soon as it calls again; the end of the process ends it in any case. That is why work must be
//! `'static`.
//!
//! **Time** is counted by the thread that called for the ranks, in ticks. A process that is stopped and continued, a laptop that
//! sleeps, and a caller that is busy with a message of a rank cost two ticks at most (a tick is a sixteenth of the deadline, at most 0.1 s).

mod agree;
mod member;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use crate::{DEADLINE, Error, Group, Loss, Result};
use member::Member;
use state::World;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};
pub use watch::Caller;
use watch::{Event, Watch};

/// How ranks are run as threads.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A rank that finishes nothing for longer than this is lost: no call, and no operation of its own that it tells of by
    /// [`Group::progress`]. Time in which it waits for others does not count.
    pub deadline: Duration,
    /// How long after a failure the caller waits for ranks that can still return.
    pub grace: Duration,
}

impl Options {
    /// The default grace with this deadline.
    pub fn deadline(deadline: Duration) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }
}

impl Default for Options {
    /// [`DEADLINE`], and a grace of two seconds.
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            grace: Duration::from_secs(2),
        }
    }
}

/// What each of `world_size` ranks returns, in rank order; each runs `work` on a thread of its own with the world's group.
///
/// A rank that returns an error or panics makes the others' calls fail with [`Error::PeerLost`], and one that never returns is
/// left behind, so this always returns.
///
/// # Errors
/// The error of the rank that was the cause: [`Error::Rank`] with its message if it returned an error, panicked or stopped
/// answering, [`Error::NoThread`] if it was never started, otherwise what the lowest failing rank reports.
///
/// # Examples
/// ```
/// use xdit_comm::threads;
/// let ranks = threads::run(4, |group| Ok(group.rank()))?;
/// assert_eq!(ranks, [0, 1, 2, 3]);
/// let error = threads::run(2, |group| match group.rank() {
///     0 => Err(xdit_comm::Error::Kernel("out of luck".into())),
///     _ => group.barrier(),
/// });
/// assert!(error.unwrap_err().to_string().contains("rank 0: out of luck"));
/// # Ok::<(), xdit_comm::Error>(())
/// ```
pub fn run<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    let outcomes = run_each(world_size, Options::default(), work);
    let (mut done, mut errors) = (vec![], vec![]);
    for outcome in outcomes {
        match outcome {
            Ok(value) => done.push(value),
            Err(error) => errors.push(error),
        }
    }
    cause(errors).map_or(Ok(done), Err)
}

/// The error that the others of [`run_each`] follow from: survivors' [`Error::PeerLost`] only repeats it, and who was left behind
/// after a failure did not bring it about. None without errors.
pub fn cause(errors: Vec<Error>) -> Option<Error> {
    errors.into_iter().min_by_key(|error| match error {
        Error::NoThread { .. } => 0,
        Error::Rank { reason, .. } if !matches!(reason, Loss::LeftBehind { idle: None }) => 1,
        Error::Rank { .. } => 3,
        _ => 2,
    })
}

/// What each rank returns, failures kept apart: [`Error::Rank`] for a rank whose own work failed or panicked or that was left
/// behind, [`Error::NoThread`] for one that was never started, the error of its last group call for one that was a survivor.
///
/// Returns at the latest when the deadline and the grace have passed since a rank last did anything, whatever its thread does.
pub fn run_each<T: Send + 'static>(
    world_size: usize,
    options: Options,
    work: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    let silent = move |group: Group, _: Caller<()>| work(group);
    run_serving(world_size, options, silent, |()| {})
}

/// As [`run_each`], while the calling thread serves what ranks send it by their [`Caller`]: for what must stay on that thread, or
/// cannot be `'static`. While it serves, the ranks' deadline does not run.
///
/// # Examples
/// ```
/// use xdit_comm::threads::{self, Caller, Options};
/// let mut seen = vec![];
/// let work = |_, caller: Caller<&'static str>| Ok(caller.send("at work"));
/// let outcomes = threads::run_serving(2, Options::default(), work, |message| seen.push(message));
/// assert!(outcomes.into_iter().all(|sent| sent.is_ok_and(|sent| sent)));
/// assert_eq!(seen, ["at work", "at work"]);
/// ```
pub fn run_serving<T: Send + 'static, M: Send + 'static>(
    world_size: usize,
    options: Options,
    work: impl Fn(Group, Caller<M>) -> Result<T> + Send + Sync + 'static,
    serve: impl FnMut(M),
) -> Vec<Result<T>> {
    let world = World::new(world_size);
    let outcomes: Outcomes<T> = Arc::new(Mutex::new((0..world_size).map(|_| None).collect()));
    let (sender, events) = mpsc::channel();
    let work = Arc::new(work);
    let mut started = Vec::with_capacity(world_size);
    for rank in 0..world_size {
        let (of_rank, work, told) = (world.clone(), work.clone(), outcomes.clone());
        let caller = Caller(sender.clone());
        let body = move || {
            let outcome = run_one(&of_rank, rank, |group| work(group, caller.clone()));
            // What it held is free when its outcome is seen.
            drop(work);
            lock(&told)[rank] = Some(outcome);
            // Without a receiver nobody waits for it any more.
            caller.0.send(Event::Returned(rank)).ok();
        };
        let thread = std::thread::Builder::new().name(format!("rank {rank}"));
        match thread.spawn(body) {
            // Nobody joins it: a thread that never ends would be waited for for ever.
            Ok(_) => started.push(rank),
            Err(e) => {
                // Told at once, so that the others do not wait for the deadline.
                let reason = e.to_string();
                world.leave(rank, Some(&format!("no thread for it: {reason}")));
                lock(&outcomes)[rank] = Some(Err(Error::NoThread { rank, reason }));
            }
        }
    }
    drop((sender, work));
    let watch = Watch::new(options.deadline, options.grace);
    let watch = watch.run(&world, &events, serve, started);
    // What was returned meanwhile counts; what is still to come will lie in a list that nobody reads.
    let taken: Vec<_> = lock(&outcomes).iter_mut().map(Option::take).collect();
    let ranks = taken.into_iter().enumerate();
    ranks
        .map(|(rank, outcome)| {
            outcome.unwrap_or_else(|| {
                let reason = watch.loss(rank);
                Err(Error::Rank { rank, reason })
            })
        })
        .collect()
}

/// Of each rank, when it has returned.
type Outcomes<T> = Arc<Mutex<Vec<Option<Result<T>>>>>;

/// Nothing panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_one<T>(world: &Arc<World>, rank: usize, work: impl Fn(Group) -> Result<T>) -> Result<T> {
    let group = Group::new(Box::new(Member::of_world(world.clone(), rank)));
    let outcome = catch_unwind(AssertUnwindSafe(|| work(group)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Kernel(format!(
            "panicked: {}",
            text.unwrap_or("without a message")
        )))
    });
    match outcome {
        Ok(value) => {
            world.leave(rank, None);
            Ok(value)
        }
        // What another rank caused is passed on as it is.
        Err(e @ (Error::PeerLost { .. } | Error::Disagree { .. } | Error::Deadlock(_))) => {
            world.leave(rank, Some(&e.to_string()));
            Err(e)
        }
        Err(e) => {
            let reason = e.to_string();
            world.leave(rank, Some(&reason));
            let reason = Loss::Failed(reason);
            Err(Error::Rank { rank, reason })
        }
    }
}
