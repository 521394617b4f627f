//! Ranks as threads of one process: tensors change hands without a copy.

mod agree;
mod member;
mod state;
#[cfg(test)]
mod tests;

use crate::{DEADLINE, Error, Group, Result};
use member::Member;
use state::World;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

/// How ranks are run as threads.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A rank that keeps others waiting for longer than this without starting or finishing an operation is lost.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: DEADLINE }
    }
}

/// What each of `world_size` ranks returns, in rank order; each runs `work` on a thread of its own with the world's group.
///
/// A rank that returns an error or panics makes the others' calls fail with [`Error::PeerLost`], so this always returns.
///
/// # Errors
/// The error of the rank that was the cause: [`Error::Rank`] with its message if it returned an error or panicked
/// itself, otherwise what the lowest failing rank reports.
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
pub fn run<T: Send>(world_size: usize, work: impl Fn(Group) -> Result<T> + Sync) -> Result<Vec<T>> {
    let outcomes = run_each(world_size, Options::default(), work);
    if outcomes.iter().all(Result::is_ok) {
        return outcomes.into_iter().collect();
    }
    let mut errors: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    // The cause first: survivors' PeerLost only repeats it.
    errors.sort_by_key(|e| !matches!(e, Error::Rank { .. }));
    Err(errors.swap_remove(0))
}

/// What each rank returns, failures kept apart: [`Error::Rank`] for a rank whose own work failed or panicked, the error of
/// its last group call for one that was a survivor.
pub fn run_each<T: Send>(
    world_size: usize,
    options: Options,
    work: impl Fn(Group) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let world = World::new(world_size, options.deadline);
    std::thread::scope(|scope| {
        let spawn = |rank: usize| {
            let (world, work) = (world.clone(), &work);
            let body = move || run_one(&world, rank, work);
            std::thread::Builder::new()
                .name(format!("rank {rank}"))
                .spawn_scoped(scope, body)
        };
        let handles: Vec<_> = (0..world_size).map(spawn).collect();
        let join = |(rank, handle): (
            usize,
            std::io::Result<std::thread::ScopedJoinHandle<'_, Result<T>>>,
        )| {
            let lost = |reason: String| {
                world.leave(rank, Some(&reason));
                Err(Error::Rank { rank, reason })
            };
            match handle {
                Ok(handle) => handle
                    .join()
                    .unwrap_or_else(|_| lost("its thread died".into())),
                Err(e) => lost(format!("no thread for it: {e}")),
            }
        };
        // Ranks whose thread could not be started are reported at once, so that the others do not wait for the deadline.
        for (rank, handle) in handles.iter().enumerate() {
            if let Err(e) = handle {
                world.leave(rank, Some(&format!("no thread for it: {e}")));
            }
        }
        handles.into_iter().enumerate().map(join).collect()
    })
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
            Err(Error::Rank { rank, reason })
        }
    }
}
