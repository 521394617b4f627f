//! Captured graphs: the calls that streams would have got, and their replay.

use std::sync::Arc;

use crate::clock::OpRef;
use crate::work::Work;

/// A call during a capture.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Work(Work, String),
    Record,
    /// Of the record with this number.
    Wait(usize),
}

/// A capture that is going on, or its result. Each stream that takes part is a lane; the one that began is lane 0.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub(crate) origin: usize,
    pub(crate) invalid: bool,
    lanes: Vec<usize>,
    pub(crate) calls: Vec<(usize, Call)>,
    /// For each lane, how many calls of each lane it knows to be before it. Lanes that were not joined show at the end.
    known: Vec<Vec<usize>>,
    /// The same for each record of an event.
    records: Vec<Vec<usize>>,
}

impl Capture {
    pub(crate) fn new(origin: usize) -> Self {
        Self {
            origin,
            invalid: false,
            lanes: vec![origin],
            calls: Vec::new(),
            known: vec![vec![0]],
            records: Vec::new(),
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn lane(&mut self, stream: usize) -> usize {
        if let Some(found) = self.lanes.iter().position(|lane| *lane == stream) {
            return found;
        }
        self.lanes.push(stream);
        for known in &mut self.known {
            known.push(0);
        }
        self.known.push(vec![0; self.lanes.len()]);
        self.lanes.len() - 1
    }

    fn call(&mut self, stream: usize, call: Call) -> usize {
        let lane = self.lane(stream);
        self.known[lane][lane] += 1;
        self.calls.push((lane, call));
        lane
    }

    pub(crate) fn add(&mut self, stream: usize, work: Work, label: String) {
        self.call(stream, Call::Work(work, label));
    }

    /// Records an event; the result is for `wait`.
    pub(crate) fn record(&mut self, stream: usize) -> usize {
        let lane = self.call(stream, Call::Record);
        self.records.push(self.known[lane].clone());
        self.records.len() - 1
    }

    pub(crate) fn wait(&mut self, stream: usize, record: usize) {
        let lane = self.call(stream, Call::Wait(record));
        for (known, recorded) in self.known[lane].iter_mut().zip(&self.records[record]) {
            *known = (*known).max(*recorded);
        }
    }

    /// Whether the first lane comes after all calls of the others.
    pub(crate) fn is_joined(&self) -> bool {
        (0..self.lanes.len()).all(|lane| self.known[0][lane] >= self.known[lane][lane])
    }
}

/// A graph that can be launched.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) graph: Arc<Capture>,
    /// The streams of all lanes but the first, which is the stream of the launch.
    pub(crate) lanes: Vec<usize>,
    /// The end of the latest launch: a graph does not run beside itself.
    pub(crate) last: Option<OpRef>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_lane_must_be_joined() {
        let mut capture = Capture::new(7);
        capture.add(7, Work::Nothing, "first".into());
        let fork = capture.record(7);
        capture.wait(8, fork);
        capture.add(8, Work::Nothing, "beside".into());
        assert!(!capture.is_joined());
        let join = capture.record(8);
        capture.wait(7, join);
        assert!(capture.is_joined());
        assert_eq!(capture.lanes(), 2);
    }
}
