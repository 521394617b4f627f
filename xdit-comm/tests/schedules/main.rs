//! Runs the mailbox of the threads backend under many orders of its ranks' steps. Its source is compiled here a second time,
//! with shuttle's locks, which run one rank at a time and choose the next one at each lock. There are no timeouts, so a missing
//! wake-up is a deadlock, which shuttle reports with the schedule that leads to it.

#[path = "../../src/threads/agree.rs"]
mod agree;
#[path = "../../src/threads/board.rs"]
mod board;
#[path = "../../src/threads/circle.rs"]
mod circle;
#[path = "../../src/threads/finish.rs"]
mod finish;
#[path = "../../src/threads/member.rs"]
mod member;
mod programs;
#[path = "../../src/threads/queues.rs"]
mod queues;
#[path = "../../src/threads/state.rs"]
mod state;

/// What `xdit_comm`'s own `sync` has of the standard library.
mod sync {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

use member::Member;
use state::World;
use std::sync::Arc;
use xdit_comm::{Backend, Call, Error, Group, Loss, Op, ReduceOp, Result, Spec, Ticket};

/// What each rank returns, as `threads::run_each`, with shuttle's threads.
fn run_each<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(&Group) -> Result<T> + Send + Sync + 'static,
) -> (Arc<World>, Vec<Result<T>>) {
    run_each_watched(world_size, |_| {}, work)
}

/// The same; `watch` runs on the calling thread meanwhile.
fn run_each_watched<T: Send + 'static>(
    world_size: usize,
    watch: impl FnOnce(&World),
    work: impl Fn(&Group) -> Result<T> + Send + Sync + 'static,
) -> (Arc<World>, Vec<Result<T>>) {
    let world = World::new(world_size);
    let outcomes = run_call(&world, world_size, watch, work);
    (world, outcomes)
}

/// One of several calls of the same ranks.
fn run_call<T: Send + 'static>(
    world: &Arc<World>,
    world_size: usize,
    watch: impl FnOnce(&World),
    work: impl Fn(&Group) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    let work = Arc::new(work);
    let ranks: Vec<_> = (0..world_size)
        .map(|rank| {
            let (world, work) = (world.clone(), work.clone());
            shuttle::thread::spawn(move || {
                let group = Group::new(Box::new(Member::of_world(world.clone(), rank, None)));
                let outcome = work(&group);
                let reason = outcome.as_ref().err().map(ToString::to_string);
                world.leave(rank, reason.as_deref());
                outcome
            })
        })
        .collect();
    watch(world);
    let joined = ranks.into_iter().map(|rank| rank.join());
    joined.map(|rank| rank.expect("no rank panics")).collect()
}
