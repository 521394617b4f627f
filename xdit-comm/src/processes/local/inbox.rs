//! The tensors that have arrived at a rank, until it takes them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xdit_kernels::Tensor;

/// Tensors that arrive in the order in which they were sent: those of one sender to one group, messages or parts of collectives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SocketLane {
    /// The splits that lead from the world to the group, each as its number and its color.
    pub(super) path: Arc<Vec<u64>>,
    /// In the world.
    pub(super) sender: usize,
    /// Whether it is a part of a collective, which have an order of their own.
    pub(super) collective: bool,
}

/// What has arrived at this rank. Readers of sockets put tensors in, and the rank takes them.
#[derive(Debug, Default)]
pub(super) struct SocketInbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct InboxState {
    lanes: HashMap<SocketLane, Arrivals>,
    /// Of each sender whose connection has ended, why.
    ended: HashMap<usize, String>,
    /// Why this rank cannot go on.
    failed: Option<String>,
    aborted: bool,
}

#[derive(Debug, Default)]
struct Arrivals {
    tensors: BTreeMap<u64, Tensor>,
    /// Numbers that the rank has given up on.
    unwanted: HashSet<u64>,
    arrived: u64,
    awaited: u64,
}

impl SocketInbox {
    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in the next tensor of a lane.
    pub(super) fn put(&self, lane: SocketLane, tensor: Tensor) {
        let mut state = self.lock();
        let arrivals = state.lanes.entry(lane).or_default();
        let number = arrivals.arrived;
        arrivals.arrived += 1;
        if !arrivals.unwanted.remove(&number) {
            arrivals.tensors.insert(number, tensor);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Returns the number of the tensor of the lane that the rank waits for next.
    pub(super) fn expect(&self, lane: &SocketLane) -> u64 {
        let mut state = self.lock();
        let arrivals = state.lanes.entry(lane.clone()).or_default();
        arrivals.awaited += 1;
        arrivals.awaited - 1
    }

    /// Takes a tensor, if it has arrived.
    ///
    /// # Errors
    /// Why it will never arrive.
    pub(super) fn take(&self, lane: &SocketLane, number: u64) -> Result<Option<Tensor>, String> {
        let mut state = self.lock();
        if state.aborted {
            return Err("the group has ended after a failure".into());
        }
        let arrivals = state.lanes.get_mut(lane);
        let arrived = arrivals.and_then(|arrivals| arrivals.tensors.remove(&number));
        match state.ended.get(&lane.sender) {
            Some(reason) if arrived.is_none() => Err(reason.clone()),
            _ => Ok(arrived),
        }
    }

    /// The rank does not want a tensor any more.
    pub(super) fn forget(&self, lane: &SocketLane, number: u64) {
        let mut state = self.lock();
        let arrivals = state.lanes.entry(lane.clone()).or_default();
        if arrivals.arrived > number {
            arrivals.tensors.remove(&number);
        } else {
            arrivals.unwanted.insert(number);
        }
    }

    /// Nothing more arrives from `sender`.
    pub(super) fn end(&self, sender: usize, reason: String) {
        self.lock().ended.entry(sender).or_insert(reason);
        self.changed.notify_all();
    }

    /// This rank cannot go on, for this reason.
    pub(super) fn fail(&self, reason: String) {
        self.lock().failed.get_or_insert(reason);
        self.changed.notify_all();
    }

    /// Returns why this rank cannot go on, if it cannot.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    /// Nothing more is taken.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = true;
        state.lanes.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until something arrives or ends, for `limit` at most. It may return earlier.
    pub(super) fn wait(&self, lane: &SocketLane, number: u64, limit: Duration) {
        let state = self.lock();
        let is_there = |state: &InboxState| {
            state
                .lanes
                .get(lane)
                .is_some_and(|arrivals| arrivals.tensors.contains_key(&number))
        };
        if !state.aborted && !state.ended.contains_key(&lane.sender) && !is_there(&state) {
            drop(self.changed.wait_timeout(state, limit));
        }
    }
}
