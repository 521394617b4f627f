//! How fast the threads of the program queue operations, compared with each other.

use std::fs;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// `VGPU_PACE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As the system schedules them.
    Free,
    /// In step: threads that queue operations wait for each other before each operation.
    Level,
    /// The thread of this number waits before each operation. Threads count from 0 in the order of their first operation.
    Slow(usize),
}

impl Pace {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "free" => Some(Self::Free),
            "level" => Some(Self::Level),
            _ => text.strip_prefix("slow:")?.parse().ok().map(Self::Slow),
        }
    }
}

/// A slow thread waits so long before an operation.
const PAUSE: Duration = Duration::from_micros(200);
/// How often a thread in step looks at what the others do.
const GLANCE: Duration = Duration::from_micros(100);
/// A thread that sleeps at so many glances waits for something, perhaps for this thread.
const GLANCES: usize = 3;

/// Slows down threads according to the pace.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    state: Mutex<PacerState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PacerState {
    /// The numbers that the system gave the threads which have queued something. Those in step leave when they have ended.
    threads: Vec<i32>,
    /// Those that wait for the end of the present round.
    arrived: Vec<i32>,
    round: u64,
}

impl PacerState {
    /// Notes that the current thread queues an operation. Returns its number, and that of the system.
    fn note(&mut self) -> (usize, i32) {
        // SAFETY: takes nothing and always succeeds.
        let me = unsafe { libc::gettid() };
        let known = self.threads.iter().position(|thread| *thread == me);
        let index = known.unwrap_or_else(|| {
            self.threads.push(me);
            self.threads.len() - 1
        });
        (index, me)
    }

    /// Whether a thread that has not arrived runs, or would if a processor were free. Forgets threads that have ended.
    fn is_awaited(&mut self) -> bool {
        let mut awaited = false;
        self.threads.retain(|thread| {
            if self.arrived.contains(thread) {
                return true;
            }
            let state = state(*thread);
            awaited |= matches!(state, Some('R' | 'D'));
            !matches!(state, None | Some('X' | 'Z'))
        });
        awaited
    }
}

/// The letter by which the system tells what a thread of this process does; `None` if it has ended.
fn state(thread: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // After the name in parentheses, which may itself contain some.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

impl Pacer {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits as the pace says before the current thread queues an operation.
    pub(crate) fn before_operation(&self) {
        match self.pace {
            Pace::Free => {}
            Pace::Slow(slow) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let (number, _) = state.note();
                drop(state);
                if number == slow {
                    thread::sleep(PAUSE);
                }
            }
            Pace::Level => self.keep_step(),
        }
    }

    fn keep_step(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, me) = state.note();
        let round = state.round;
        state.arrived.push(me);
        let mut idle = 0;
        while state.round == round && state.arrived.len() < state.threads.len() && idle < GLANCES {
            idle = if state.is_awaited() { 0 } else { idle + 1 };
            let waited = self.changed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.round == round {
            state.round += 1;
            state.arrived.clear();
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_ended_is_not_waited_for() {
        let pacer = Pacer::new(Pace::Level);
        let threads = || pacer.state.lock().unwrap().threads.len();
        thread::scope(|scope| {
            let other = scope.spawn(|| pacer.before_operation());
            other.join().unwrap();
        });
        assert_eq!(threads(), 1);
        pacer.before_operation();
        assert_eq!(threads(), 1);
    }
}
