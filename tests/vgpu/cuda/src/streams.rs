//! Streams, events and devices.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::{Clock, OpRef};
use crate::work::Work;

/// Operations in order.
#[derive(Debug)]
pub(crate) struct StreamQueue {
    pub(crate) device: usize,
    pub(crate) alive: bool,
    /// Whether it waits for the legacy default stream, and that one for it.
    pub(crate) blocking: bool,
    /// Whether it is the legacy default stream of its device.
    pub(crate) legacy: bool,
    /// Whether the double made it for itself.
    pub(crate) internal: bool,
    /// The capture that takes its operations.
    pub(crate) capture: Option<usize>,
    pub(crate) queue: VecDeque<(OpRef, Work)>,
    /// The operation that a thread runs.
    pub(crate) running: Option<(OpRef, Work)>,
    pub(crate) issued: u64,
    pub(crate) done: u64,
    pub(crate) last: Option<OpRef>,
    pub(crate) clock: Clock,
    /// Waits for events so far.
    pub(crate) waits: u64,
}

impl StreamQueue {
    pub(crate) fn new(device: usize, blocking: bool) -> Self {
        Self {
            device,
            alive: true,
            blocking,
            legacy: false,
            internal: false,
            capture: None,
            queue: VecDeque::new(),
            running: None,
            issued: 0,
            done: 0,
            last: None,
            clock: Clock::new(),
            waits: 0,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.done == self.issued
    }
}

/// An event.
#[derive(Debug)]
pub(crate) struct EventState {
    pub(crate) device: usize,
    pub(crate) alive: bool,
    pub(crate) timing: bool,
    /// The latest record.
    pub(crate) record: Option<OpRef>,
    pub(crate) nanoseconds: u64,
    /// The capture that recorded it, and the mark there.
    pub(crate) captured: Option<(usize, usize)>,
}

/// A device.
#[derive(Debug)]
pub(crate) struct DeviceState {
    /// How often the primary context is retained.
    pub(crate) retained: usize,
    /// The legacy default stream.
    pub(crate) legacy: usize,
    /// The stream of frees that the host calls for.
    pub(crate) frees: usize,
    /// The devices whose memory kernels may use.
    pub(crate) peers: BTreeSet<usize>,
    /// The release threshold of the memory pool, which programs may set and read.
    pub(crate) pool_threshold: u64,
    /// The most bytes that were allocated.
    pub(crate) peak: usize,
}
