//! A backend for tests, over threads, that behaves like NCCL. Code that runs on it needs only what NCCL guarantees.
//!
//! - Each rank has a queue. Its batches run one after another in the order in which they were started, over all groups of the world.
//!   [`Group::receives_ahead`] is false.
//! - A receive blocks its queue until its message is sent. A send blocks its queue until its receiver takes the message. Only the
//!   calls of one batch progress together.
//! - A dropped ticket does not stop its batch, which blocks the queue until it is complete. A rank ends when its queue is empty.
//! - A reduction adds ranks in an order that [`StrictOptions::seed`] determines.
//! - Tensors of another device than [`StrictOptions::device`] are errors.
//! - Ranks and queues pause at random. [`StrictOptions::seed`] determines the pauses.
//!
//! No run hangs: if ranks and queues wait for each other in a circle, they get an [`Error::Deadlock`]. It names the running
//! operations, what each one needs, and where that is blocked.
//!
//! [`unbatched`] and [`posting_ahead`] make a group break the posting rule, so that a test can show that this backend detects it.
//!
//! # Examples
//! Two ranks that first send and then receive, in batches of their own, wait for each other:
//! ```
//! use xdit_comm::{Spec, strict};
//! use xdit_kernels::{Device, Tensor};
//! let options = strict::StrictOptions::default();
//! let swapped = strict::run(2, &options, |group| {
//!     let (mine, peer) = (Tensor::from_slice(&[group.rank() as f32], [1], &Device::cpu())?, 1 - group.rank());
//!     Ok(group.send_recv(&mine, peer, Spec::of(&mine), peer)?.to_vec_blocking::<f32>()?[0])
//! })?;
//! assert_eq!(swapped, [1.0, 0.0]);
//! let stuck = strict::run(2, &options, |group| {
//!     let (mine, peer) = (Tensor::from_slice(&[group.rank() as f32], [1], &Device::cpu())?, 1 - group.rank());
//!     drop(group.start_send(&mine, peer)?);
//!     group.recv(Spec::of(&mine), peer)
//! });
//! assert!(stuck.unwrap_err().to_string().contains("queued behind send to 1"));
//! # Ok::<(), xdit_comm::Error>(())
//! ```

mod careless;
mod dice;
mod matching;
mod member;
mod options;
mod queue;
mod stuck;
#[cfg(test)]
mod tests;
mod world;

pub use careless::{posting_ahead, unbatched};
pub use options::StrictOptions;

use crate::{Error, Group, Result, threads};
use member::StrictMember;
use std::sync::Arc;
use world::StrictWorld;

/// Runs `work` on `world_size` ranks and returns the results in rank order, like [`threads::run`].
///
/// # Errors
/// As for [`threads::run`].
pub fn run<T: Send + 'static>(
    world_size: usize,
    options: &StrictOptions,
    work: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    threads::all(run_each(world_size, options, work))
}

/// Returns the result of each rank separately, like [`threads::run_each`].
pub fn run_each<T: Send + 'static>(
    world_size: usize,
    options: &StrictOptions,
    work: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    let world = StrictWorld::new(world_size, options);
    let options = threads::Options::deadline(options.deadline);
    threads::run_each(world_size, options, move |ranks| {
        on_rank(&world, &ranks, &work)
    })
}

fn on_rank<T>(
    world: &Arc<StrictWorld>,
    ranks: &Group,
    work: impl Fn(Group) -> Result<T>,
) -> Result<T> {
    let rank = ranks.rank();
    let (of_queue, dice) = (world.clone(), world.dice(2 * rank + 1));
    let queue = std::thread::Builder::new().name(format!("queue of rank {rank}"));
    let queue = queue.spawn(move || queue::run(&of_queue, rank, &dice));
    let queue = queue.map_err(|e| Error::NoThread {
        rank,
        reason: e.to_string(),
    })?;
    let outcome = {
        let leaves = Leaves { world, rank };
        let member = StrictMember::of_world(world.clone(), rank, ranks.clone());
        let outcome = work(Group::new(Box::new(member)));
        if let Err(error) = &outcome {
            leaves.world.fail(rank, &error.to_string());
        }
        outcome
    };
    // Started batches run to their end, unless another rank is lost meanwhile.
    loop {
        let mut state = world.lock();
        let over = state.failure.is_some() || state.queues[rank].batches.is_empty();
        if over || queue.is_finished() {
            break;
        }
        state = world.wait(state, Some(world::TICK));
        if let Some(failure) = world::lost(ranks) {
            state.fail(failure);
            world.settle(state);
        }
    }
    let ended = queue.join();
    let outcome = outcome?;
    if ended.is_err() {
        return Err(Error::Kernel("its queue has panicked".into()));
    }
    match world.failure(rank, "end of its queue") {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// Reports that a rank has returned, also after a panic.
struct Leaves<'a> {
    world: &'a StrictWorld,
    rank: usize,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.fail(self.rank, "panicked");
        }
        self.world.leave(self.rank);
    }
}
