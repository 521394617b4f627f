//! A rank's queue: one batch after another.

use super::{
    dice::Dice,
    world::{Rank, StrictState, StrictWorld},
};
use std::sync::{Arc, MutexGuard};

/// Runs the queue until its rank has returned and it is empty, or something has failed.
pub(super) fn run(world: &Arc<StrictWorld>, rank: Rank, dice: &Dice) {
    let waits = |until: &dyn Fn(&StrictState) -> bool| -> Option<MutexGuard<'_, StrictState>> {
        let mut state = world.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if until(&state) {
                return Some(state);
            }
            state = world.wait(state, None);
        }
    };
    loop {
        let has_work =
            |state: &StrictState| !state.queues[rank].batches.is_empty() || state.has_left(rank);
        match waits(&has_work) {
            Some(state) if !state.queues[rank].batches.is_empty() => drop(state),
            _ => return,
        }
        dice.pause();
        let mut state = world.lock();
        if let Some(front) = state.queues[rank].batches.front_mut() {
            front.runs = true;
        }
        world.settle(state);
        let is_done = |state: &StrictState| {
            let front = state.queues[rank].batches.front();
            front.is_none_or(|front| front.is_done())
        };
        match waits(&is_done) {
            Some(state) => drop(state),
            None => return,
        }
        dice.pause();
        let mut state = world.lock();
        let queue = &mut state.queues[rank];
        if let Some(front) = queue.batches.pop_front() {
            let brought = front.parts.into_iter().filter_map(|part| part.done);
            let brought = brought.flatten().collect();
            // A ticket that is gone has left a mark.
            if queue.brought.remove(&queue.ran).is_none() {
                queue.brought.insert(queue.ran, Some(brought));
            }
            queue.ran += 1;
        }
        world.settle(state);
    }
}
