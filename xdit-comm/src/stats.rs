use crate::Axis;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Totals of one rank per operation and mesh axis (`None` for groups without an axis). Exchanges of the control plane count as the
/// operation `control`. Each call of a batch counts under its own operation, and the wait under that of its first receive.
pub type Stats = BTreeMap<(&'static str, Option<Axis>), OpStats>;

/// Totals of one operation on one axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpStats {
    /// Number of calls.
    pub calls: usize,
    /// Bytes sent to other ranks, counted once for each receiver.
    pub bytes: usize,
    /// Bytes that the caller copied to pack messages and to place received ones
    /// ([`Group::count_copied`](crate::Group::count_copied)).
    pub copied: usize,
    /// Time spent waiting.
    pub waited: Duration,
}

impl OpStats {
    /// Returns the difference to the totals at an `earlier` time.
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::OpStats;
    /// let earlier = OpStats { calls: 2, bytes: 8, ..OpStats::default() };
    /// let now = OpStats { calls: 3, bytes: 8, ..OpStats::default() };
    /// assert_eq!(now.since(earlier), OpStats { calls: 1, ..OpStats::default() });
    /// ```
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            copied: self.copied.saturating_sub(earlier.copied),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// The totals that a group and those split from it share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters(Arc<Mutex<Stats>>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, Stats> {
        // Totals stay sums whatever a panicking holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn started(&self, op: &'static str, axis: Option<Axis>, bytes: usize) {
        let mut stats = self.lock();
        let entry = stats.entry((op, axis)).or_default();
        entry.calls += 1;
        entry.bytes += bytes;
    }

    pub(crate) fn waited(&self, op: &'static str, axis: Option<Axis>, time: Duration) {
        self.lock().entry((op, axis)).or_default().waited += time;
    }

    pub(crate) fn copied(&self, op: &'static str, axis: Option<Axis>, bytes: usize) {
        self.lock().entry((op, axis)).or_default().copied += bytes;
    }

    pub(crate) fn read(&self) -> Stats {
        self.lock().clone()
    }
}
