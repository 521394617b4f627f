//! Vector clocks: what had happened before an operation ran.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// For each stream, how many of its operations are known to be complete.
pub(crate) type Clock = Vec<u64>;

/// Adds what `other` knows to `clock`.
pub(crate) fn join(clock: &mut Clock, other: &[u64]) {
    if clock.len() < other.len() {
        clock.resize(other.len(), 0);
    }
    for (known, also) in clock.iter_mut().zip(other) {
        *known = (*known).max(*also);
    }
}

/// Whether who has this clock knows that an operation is complete.
pub(crate) fn knows(clock: &[u64], operation: &Operation) -> bool {
    clock
        .get(operation.stream)
        .is_some_and(|&complete| complete >= operation.number)
}

/// An operation of a stream, as others refer to it.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) stream: usize,
    /// Counted from 1 within the stream.
    pub(crate) number: u64,
    pub(crate) label: String,
    /// What the host knew when it queued the operation.
    pub(crate) host: Clock,
    clock: OnceLock<Clock>,
}

/// A shared reference to an operation.
pub(crate) type OpRef = Arc<Operation>;

impl Operation {
    pub(crate) fn new(stream: usize, number: u64, label: String, host: Clock) -> OpRef {
        Arc::new(Self {
            stream,
            number,
            label,
            host,
            clock: OnceLock::new(),
        })
    }

    /// The operation begins to run after all that `clock` knows.
    pub(crate) fn begin(&self, clock: Clock) {
        // Each operation begins once; a second clock would be ignored.
        let _ = self.clock.set(clock);
    }

    /// What had happened before the operation; nothing while it has not begun.
    pub(crate) fn clock(&self) -> &[u64] {
        self.clock.get().map_or(&[], Vec::as_slice)
    }

    /// Whether this operation was complete before `later` began.
    pub(crate) fn before(&self, later: &Self) -> bool {
        knows(later.clock(), self)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} [stream s{}, operation {}]",
            self.label, self.stream, self.number
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_before_those_that_know_it() {
        let first = Operation::new(0, 1, "first".into(), vec![]);
        let second = Operation::new(1, 1, "second".into(), vec![]);
        let third = Operation::new(2, 1, "third".into(), vec![]);
        first.begin(vec![1]);
        second.begin(vec![1, 1]);
        third.begin(vec![0, 0, 1]);
        assert!(first.before(&second) && !second.before(&first));
        assert!(!first.before(&third) && !third.before(&first));
    }

    #[test]
    fn joined_clocks_know_both() {
        let mut clock = vec![3];
        join(&mut clock, &[1, 5]);
        assert_eq!(clock, [3, 5]);
    }
}
