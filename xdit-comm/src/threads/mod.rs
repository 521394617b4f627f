//! Ranks as threads of one process: tensors change hands without a copy.
//!
//! [`Ranks`] start once and serve call after call; [`run`], [`run_each`] and [`run_serving`] are one call on ranks of its own.
//!
//! **A thread cannot be stopped from outside**, so that a rank which never returns (an endless loop, a thread that a debugger
//! holds) is *left behind*: the caller goes on without it, within the deadline and [`Options::grace`]. Its thread runs on and keeps
//! what it holds: its share of the closure, its tensors, a core if it loops. Every later call on its group fails with
//! [`Error::PeerLost`], so that it ends as soon as it calls again, and cannot reach the ranks' next call, which has a group of its own;
//! the end of the process ends it in any case. That is why work must be
//! `'static`.
//!
//! **Time** is counted by the thread that called for the ranks, in ticks. A process that is stopped and continued, a laptop that
//! sleeps, and a caller that is busy with a message of a rank cost two ticks at most (a tick is a sixteenth of the deadline, at most 0.1 s).

pub(crate) mod agree;
mod board;
mod circle;
pub(crate) mod finish;
mod member;
mod options;
mod ranks;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod watch;

use crate::{Error, Group, Loss, Result};
pub use options::Options;
pub use ranks::{RankState, Ranks};
pub use watch::Caller;

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
    all(run_each(world_size, Options::default(), work))
}

/// What all ranks return, or the error that was the cause.
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

/// What each rank returns, failures kept apart: [`Error::Rank`] for a rank whose own work failed or panicked or that was left
/// behind, [`Error::NoThread`] for one that was never started, the error of its last group call for one that was a survivor.
///
/// Returns at the latest when the deadline and the grace have passed since a rank last did anything, whatever its thread does.
/// One call of [`Ranks`].
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
    let mut ranks = Ranks::new(world_size, options);
    ranks.call(
        move |group, (): &mut (), caller| work(group.clone(), caller),
        serve,
    )
}
