//! The work of the calling thread while ranks run: it advances their clock, serves their messages, and decides when to return.

use super::state::{Tick, World, WorldFailure};
use crate::Loss;
use std::{
    fmt,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

/// A message from a rank to the calling thread.
pub(super) enum RankEvent<M> {
    /// The rank's outcome is available. It is the last event of the rank.
    Returned(usize),
    Message(M),
}

/// Sends messages from a rank to the thread that made the call.
pub struct Caller<M>(pub(super) Sender<RankEvent<M>>);

impl<M> fmt::Debug for Caller<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl<M> Clone for Caller<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> Caller<M> {
    /// Sends a message, which the calling thread then serves. The message may contain a channel for the answer; if the caller has
    /// returned, the channel closes without an answer. Returns false if the caller has already returned.
    pub fn send(&self, message: M) -> bool {
        self.0.send(RankEvent::Message(message)).is_ok()
    }
}

/// The clock of a world, and how long its caller still waits.
pub(super) struct Watch {
    deadline: Duration,
    grace: Duration,
    /// How often time is looked at.
    tick: Duration,
    last: Instant,
    /// For how long the ranks' state could not be had.
    held: Duration,
    /// Since when there is a failure, by the ranks' clock, and the rank that made no progress, if that is it.
    failed: Option<(Duration, Option<(usize, Duration)>)>,
}

impl Watch {
    pub(super) fn new(deadline: Duration, grace: Duration) -> Self {
        Self {
            deadline,
            grace,
            tick: (deadline / 16).clamp(Duration::from_millis(1), Duration::from_millis(100)),
            last: Instant::now(),
            held: Duration::ZERO,
            failed: None,
        }
    }

    /// Serves ranks until those of `left` have returned, or until it makes no sense to wait longer.
    pub(super) fn run<M>(
        mut self,
        world: &World,
        events: &Receiver<RankEvent<M>>,
        mut serve: impl FnMut(M),
        mut left: Vec<usize>,
    ) -> Self {
        while !left.is_empty() && !self.gives_up(&left) {
            match events.recv_timeout(self.tick) {
                Ok(RankEvent::Message(message)) => serve(message),
                Ok(RankEvent::Returned(rank)) => left.retain(|other| *other != rank),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left to say anything: a thread has died without a word.
                Err(RecvTimeoutError::Disconnected) => return self,
            }
            self.look(world);
        }
        self
    }

    /// Moves the clock. Where this thread did not run, the ranks did not either: a gap counts as two ticks at most.
    fn look(&mut self, world: &World) {
        let gap = self.last.elapsed();
        if gap < self.tick {
            return;
        }
        self.last = Instant::now();
        let passed = gap.min(2 * self.tick);
        if let Some((since, _)) = &mut self.failed {
            *since += passed;
            return;
        }
        match world.tick(passed, self.deadline) {
            Tick::Passed => self.held = Duration::ZERO,
            Tick::Held => self.held += passed,
            Tick::Failed(WorldFailure::Lost {
                rank,
                reason: Loss::NoProgress(idle),
            }) => self.failed = Some((Duration::ZERO, Some((rank, idle)))),
            Tick::Failed(_) => self.failed = Some((Duration::ZERO, None)),
        }
    }

    /// Nobody waits for a rank that was lost for making no progress; after a failure for the others only a while; and for none if
    /// one of them was stopped where all meet.
    fn gives_up(&self, left: &[usize]) -> bool {
        let failed = self.failed.as_ref().is_some_and(|(since, stalled)| {
            let only_it = stalled.is_some_and(|(lost, _)| left == [lost]);
            only_it || *since >= self.grace
        });
        failed || self.held >= self.deadline
    }

    /// Why a rank that has not returned is lost.
    pub(super) fn loss(&self, rank: usize) -> Loss {
        let stalled = self.failed.as_ref().and_then(|(_, stalled)| *stalled);
        let stalled = stalled.filter(|(lost, _)| *lost == rank);
        let held = (self.held >= self.deadline).then_some(self.held);
        Loss::LeftBehind {
            idle: stalled.map(|(_, idle)| idle).or(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::state::Activity;

    #[test]
    fn a_rank_that_stops_with_the_lock_does_not_stop_the_caller() {
        let world = World::new(2);
        let (_sender, events) = std::sync::mpsc::channel::<RankEvent<()>>();
        let deadline = Duration::from_millis(100);
        let watch = Watch::new(deadline, deadline);
        let held = world.lock();
        let watch = watch.run(&world, &events, |()| {}, vec![0, 1]);
        drop(held);
        assert!(watch.loss(1).is_stall());
    }

    #[test]
    fn ten_deadlines_in_which_nothing_ran_are_two_ticks() {
        let world = World::new(1);
        let mut watch = Watch::new(Duration::from_secs(1), Duration::ZERO);
        for _ in 0..4 {
            let before = watch.last.checked_sub(Duration::from_secs(10));
            watch.last = before.expect("the machine has run for 10 s");
            watch.look(&world);
        }
        assert!(!watch.gives_up(&[0]));
        assert!(matches!(world.lock().ranks[0], Activity::Computing { .. }));
    }
}
