//! A backend whose ranks are threads of one process. It passes tensors between ranks without a copy.
//!
//! [`Ranks`] starts threads once and serves call after call. [`run`], [`run_each`] and [`run_serving`] make one call and start new
//! ranks for it.
//!
//! **A thread cannot be stopped from outside.** A rank that never returns (an endless loop, a thread that a debugger holds) is
//! therefore *left behind*: the caller continues without it, within the deadline and [`Options::grace`]. Its thread still runs and
//! keeps its share of the closure, its tensors, and a core if it loops. For this reason `work` must be `'static`. Every later call
//! of the thread on its group fails with [`Error::PeerLost`], so the thread ends as soon as it makes one. It cannot reach the next
//! call of the ranks, which has another group. The end of the process ends it in any case.
//!
//! **Time** is counted in ticks by the thread that called the ranks. A tick is a sixteenth of the deadline, at most 0.1 s. A process
//! that is stopped and continued, a laptop that sleeps, and a caller that handles a message of a rank count as two ticks at most.

pub(crate) mod agree;
mod board;
pub(crate) mod circle;
pub(crate) mod finish;
mod member;
mod options;
mod queues;
mod ranks;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod watch;

use crate::{Error, Group, Loss, Result};
pub use options::Options;
pub use ranks::{RankState, Ranks};
pub use watch::Caller;

/// Runs `work` on `world_size` new threads, one for each rank, and returns the results in rank order. `work` receives the group of
/// all ranks.
///
/// This function always returns. If a rank returns an error or panics, the calls of the others fail with [`Error::PeerLost`]. A rank
/// that never returns is left behind.
///
/// # Errors
/// The error of the rank that was the cause: [`Error::Rank`] with its error as the source if it returned an error, panicked or stopped
/// answering, [`Error::NoThread`] if it was never started, otherwise the error of the lowest rank that failed.
///
/// # Examples
/// ```
/// use xdit_comm::threads;
/// let ranks = threads::run(4, |group| Ok(group.rank()))?;
/// assert_eq!(ranks, [0, 1, 2, 3]);
/// let error = threads::run(2, |group| match group.rank() {
///     0 => Err(xdit_comm::Error::other("out of luck")),
///     _ => group.barrier(),
/// });
/// assert!(error.unwrap_err().to_string().contains("rank 0: out of luck"));
/// # Ok::<(), xdit_comm::Error>(())
/// ```
pub fn run<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    all(run_each(world_size, Options::default(), work))
}

/// Returns the results of all ranks, or the error that was the cause.
pub(crate) fn all<T>(outcomes: Vec<Result<T>>) -> Result<Vec<T>> {
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

/// Like [`run`], but returns the result of each rank separately: [`Error::Rank`] for a rank that failed, panicked or was left behind,
/// [`Error::NoThread`] for a rank that was never started, and the error of its last group call for a rank that only lost a peer.
///
/// It returns when the deadline and the grace have passed since the last progress of a rank, at the latest. It is one call of
/// [`Ranks`].
pub fn run_each<T: Send + 'static>(
    world_size: usize,
    options: Options,
    work: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    let silent = move |group: Group, _: Caller<()>| work(group);
    run_serving(world_size, options, silent, |()| {})
}

/// Like [`run_each`], and calls `serve` on the calling thread for each message that a rank sends with its [`Caller`]. Use it for work
/// that must stay on that thread or cannot be `'static`. The deadline of the ranks does not run while `serve` runs.
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
    let mut ranks = Ranks::new(world_size, options);
    ranks.call(
        move |group, (): &mut (), caller| work(group.clone(), caller),
        serve,
    )
}
