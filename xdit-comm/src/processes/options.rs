//! The options of ranks that are processes.

use crate::DEADLINE;
use std::time::Duration;

/// Options of ranks that are processes. All ranks have the same ones.
#[derive(Debug, Clone, Copy)]
pub struct ProcessOptions {
    /// How long ranks wait until all have come.
    pub rendezvous: Duration,
    /// A rank is lost if it finishes nothing for longer than this, as
    /// [`threads::Options::deadline`](crate::threads::Options::deadline) says.
    pub deadline: Duration,
    /// How often processes show each other that they are alive. A thread of its own does it, so a rank that computes is alive.
    pub beat: Duration,
    /// A process is lost if it shows no sign of life for this time. A process that has ended is lost at once.
    pub silence: Duration,
    /// How long rank 0, when it is done, waits for the others.
    pub grace: Duration,
}

impl Default for ProcessOptions {
    /// A rendezvous within 60 s, the deadline [`DEADLINE`], a beat each 0.5 s, lost after 4 s, and a grace of two seconds.
    fn default() -> Self {
        Self {
            rendezvous: Duration::from_secs(60),
            deadline: DEADLINE,
            beat: Duration::from_millis(500),
            silence: Duration::from_secs(4),
            grace: Duration::from_secs(2),
        }
    }
}

impl ProcessOptions {
    /// How often a thread that waits for the network looks up.
    pub(super) fn tick(&self) -> Duration {
        let tick = (self.beat / 2).min(self.silence / 4);
        tick.clamp(Duration::from_millis(1), Duration::from_millis(200))
    }
}
