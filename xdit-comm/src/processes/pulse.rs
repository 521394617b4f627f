//! The two threads of a process on the control plane: one hears rank 0, the other shows that the process is alive.

use super::{
    link::{Heard, Link},
    options::ProcessOptions,
    plane::{ControlPlane, PlaneAnswer, PlaneState},
    wire::Frame,
};
use crate::{Loss, threads::state::WorldFailure};
use std::{
    sync::{MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

/// How long a call that has been started may wait until rank 0 is told of it.
const POSTED: Duration = Duration::from_millis(50);

impl ControlPlane {
    /// Hears what rank 0 says, until the connection ends.
    pub(super) fn listen(&self, mut link: Link) {
        loop {
            let lost = match link.hear() {
                Heard::Frame(frame) => {
                    self.hear(frame);
                    continue;
                }
                Heard::Nothing => continue,
                Heard::Silence => Loss::Silent(self.options.silence),
                Heard::End => Loss::Ended,
                Heard::Nonsense(what) => Loss::Failed(format!(
                    "it sent what the control plane does not know: {what}"
                )),
            };
            if !self.state().closed {
                self.fail(WorldFailure::Lost {
                    rank: 0,
                    reason: lost,
                });
            }
            self.disconnect();
            return;
        }
    }

    fn hear(&self, frame: Frame) {
        match frame {
            Frame::Exchanged {
                group,
                number,
                parts,
            } => self.arrive((group, true, number), PlaneAnswer::Parts(parts)),
            Frame::Subgroup {
                group,
                number,
                subgroup,
                members,
            } => {
                let number_of_group = subgroup;
                let answer = PlaneAnswer::Subgroup {
                    number: number_of_group,
                    members,
                };
                self.arrive((group, false, number), answer);
            }
            // What waits goes first.
            Frame::Flush => self.send(&Frame::Flushed),
            Frame::Failed(failure) => self.fail(failure),
            // Beats, and what only rank 0 gets.
            _ => {}
        }
    }

    /// Shows that this process is alive, sends what waits, and watches that this rank makes progress, until it leaves.
    pub(super) fn beat(&self) {
        let ProcessOptions { deadline, beat, .. } = self.options;
        let tick = POSTED.min(beat / 2).min(deadline / 16);
        let tick = tick.max(Duration::from_millis(1));
        let (mut last_beat, mut last) = (Instant::now(), Instant::now());
        let (mut idle, mut known) = (Duration::ZERO, 0);
        let mut state = self.state();
        while !state.closed {
            state = self.wait_for_tick(state, tick);
            let closed = state.closed;
            drop(state);
            if closed {
                return;
            }
            if last_beat.elapsed() >= beat {
                last_beat = Instant::now();
                self.send(&Frame::Beat);
            } else {
                self.flush();
            }
            let gap = std::mem::replace(&mut last, Instant::now()).elapsed();
            let finished = self.finished.load(Ordering::Relaxed);
            let waits = self.waiting.load(Ordering::Relaxed) > 0;
            if waits || std::mem::replace(&mut known, finished) != finished {
                idle = Duration::ZERO;
            } else {
                // While this process did not run, its rank could not make progress.
                idle += gap.min(2 * tick);
                if idle >= deadline {
                    self.fail_here(Loss::NoProgress(idle));
                    idle = Duration::ZERO;
                }
            }
            state = self.state();
        }
    }

    /// Waits for a tick, whatever wakes this thread, unless this rank leaves.
    fn wait_for_tick<'a>(
        &self,
        mut state: MutexGuard<'a, PlaneState>,
        tick: Duration,
    ) -> MutexGuard<'a, PlaneState> {
        let began = Instant::now();
        while !state.closed {
            let left = tick.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            state = self.wait(state, left);
        }
        state
    }
}
