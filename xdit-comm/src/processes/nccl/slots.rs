//! What the ranks of a process have under way, behind the lock of the engine.

use super::ffi::{Communicator, Launch, NcclResult};
use std::collections::{BTreeMap, VecDeque};
use xdit_kernels::{Device, Event, TensorMut};

/// A batch that has not yet begun.
#[derive(Debug)]
struct NcclBatch {
    comm: usize,
    /// When the rank's queue has written what is sent.
    ready: Event,
    launch: Launch,
    number: u64,
}

/// The batch that is getting into the queue.
#[derive(Debug, Clone, Copy)]
struct NcclLaunching {
    number: u64,
    comm: usize,
    entries: usize,
}

/// The most entries in the queue. A stream takes about a thousand, and then the host waits in the call that makes the next: if a rank
/// dies, nobody would get to abort what the queue waits for.
const MOST_ENTRIES: usize = 256;

/// A batch that is in the queue.
#[derive(Debug)]
pub(super) struct NcclArrivals {
    pub(super) tensors: Vec<TensorMut>,
    /// When they have arrived.
    pub(super) done: Event,
}

/// A communicator, and the end of its last batch.
#[derive(Debug)]
struct NcclSlot {
    comm: Communicator,
    last: Option<Event>,
    /// Whether a group still uses it.
    wanted: bool,
    closing: bool,
}

/// Communicators, and batches in the order of the rank.
#[derive(Debug)]
pub(super) struct NcclSlots {
    queue: Device,
    slots: BTreeMap<usize, NcclSlot>,
    next_slot: usize,
    waiting: VecDeque<NcclBatch>,
    /// The batch that is getting into the queue.
    launching: Option<NcclLaunching>,
    /// By their numbers; those that nobody wants are not there.
    launched: BTreeMap<u64, NcclArrivals>,
    /// Batches whose ticket was dropped before they were in the queue.
    unwanted: Vec<u64>,
    next_batch: u64,
    /// The ends of the last batches that are in the queue, and the entries of each there.
    in_queue: VecDeque<(Event, usize)>,
    /// Whether a group is being split: no batch begins meanwhile.
    pub(super) splitting: bool,
}

impl NcclSlots {
    pub(super) fn new(queue: Device) -> Self {
        Self {
            queue,
            slots: BTreeMap::new(),
            next_slot: 0,
            waiting: VecDeque::new(),
            launching: None,
            launched: BTreeMap::new(),
            unwanted: Vec::new(),
            next_batch: 0,
            in_queue: VecDeque::new(),
            splitting: false,
        }
    }

    pub(super) fn add(&mut self, comm: Communicator) -> usize {
        let slot = NcclSlot {
            comm,
            last: None,
            wanted: true,
            closing: false,
        };
        self.slots.insert(self.next_slot, slot);
        self.next_slot += 1;
        self.next_slot - 1
    }

    pub(super) fn comm(&mut self, number: usize) -> NcclResult<&mut Communicator> {
        let slot = self.slots.get_mut(&number);
        slot.map(|slot| &mut slot.comm)
            .ok_or_else(|| "its communicator has ended".to_owned())
    }

    /// Adds a batch after all others, and returns its number.
    pub(super) fn push(&mut self, comm: usize, ready: Event, launch: Launch) -> u64 {
        let number = self.next_batch;
        self.next_batch += 1;
        self.waiting.push_back(NcclBatch {
            comm,
            ready,
            launch,
            number,
        });
        number
    }

    /// Whether batches are not yet in the queue.
    pub(super) fn is_launching(&self) -> bool {
        self.launching.is_some() || !self.waiting.is_empty()
    }

    /// Whether communicators that nobody uses have not ended.
    pub(super) fn is_closing(&self) -> bool {
        self.slots.values().any(|slot| !slot.wanted)
    }

    /// Gets batches into the queue, one after another, as far as they go. Waits for nothing.
    pub(super) fn advance(&mut self) -> NcclResult<()> {
        loop {
            if let Some(NcclLaunching {
                number,
                comm,
                entries,
            }) = self.launching
            {
                if !self.comm(comm)?.poll()? {
                    return Ok(());
                }
                let tensors = self.comm(comm)?.launched();
                let done = self.queue.record();
                if let Some(slot) = self.slots.get_mut(&comm) {
                    slot.last = Some(done.clone());
                }
                self.in_queue.push_back((done.clone(), entries));
                self.launching = None;
                match self.unwanted.iter().position(|other| *other == number) {
                    // Their memory is used again in the order of the queue.
                    Some(at) => drop(self.unwanted.swap_remove(at)),
                    None => drop(self.launched.insert(number, NcclArrivals { tensors, done })),
                }
            }
            if self.splitting {
                return Ok(());
            }
            let Some(next) = self.waiting.front() else {
                return Ok(());
            };
            let entries = next.launch.entries();
            if !self.has_room(entries)? {
                return Ok(());
            }
            let Some(batch) = self.waiting.pop_front() else {
                return Ok(());
            };
            self.queue.wait(&batch.ready);
            self.comm(batch.comm)?.begin(batch.launch)?;
            self.launching = Some(NcclLaunching {
                number: batch.number,
                comm: batch.comm,
                entries,
            });
        }
    }

    /// Whether the queue takes so many more entries, or is empty.
    fn has_room(&mut self, entries: usize) -> NcclResult<bool> {
        loop {
            let there: usize = self.in_queue.iter().map(|(_, entries)| entries).sum();
            let Some((first, _)) = self.in_queue.front() else {
                return Ok(true);
            };
            if there + entries <= MOST_ENTRIES {
                return Ok(true);
            }
            if !first.has_happened().map_err(|error| error.to_string())? {
                return Ok(false);
            }
            self.in_queue.pop_front();
        }
    }

    /// Looks whether NCCL has failed in what it has under way.
    pub(super) fn check(&mut self) -> NcclResult<()> {
        let mut comms = self.slots.values_mut();
        comms.try_for_each(|slot| slot.comm.poll().map(drop))
    }

    /// Returns a batch that is in the queue, without taking it.
    pub(super) fn arrivals(&self, number: u64) -> Option<&NcclArrivals> {
        self.launched.get(&number)
    }

    pub(super) fn take(&mut self, number: u64) -> Option<NcclArrivals> {
        self.launched.remove(&number)
    }

    /// Nobody asks for this batch any more. It runs to its end.
    pub(super) fn forget(&mut self, number: u64) {
        if self.launched.remove(&number).is_none() {
            self.unwanted.push(number);
        }
    }

    /// No group uses this communicator any more.
    pub(super) fn release(&mut self, comm: usize) {
        if let Some(slot) = self.slots.get_mut(&comm) {
            slot.wanted = false;
        }
    }

    pub(super) fn release_all(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.wanted = false);
    }

    /// Ends communicators that nobody uses, when what they have under way has run. Waits for nothing.
    pub(super) fn close(&mut self) -> NcclResult<()> {
        let busy = |comm| {
            let waits = self.waiting.iter().any(|batch| batch.comm == comm);
            waits
                || self
                    .launching
                    .is_some_and(|launching| launching.comm == comm)
        };
        let numbers = self.slots.iter().filter(|(_, slot)| !slot.wanted);
        let idle: Vec<usize> = numbers.map(|(n, _)| *n).filter(|n| !busy(*n)).collect();
        for number in idle {
            let Some(slot) = self.slots.get_mut(&number) else {
                continue;
            };
            if !slot.closing {
                let has_run = match &slot.last {
                    Some(last) => last.has_happened().map_err(|error| error.to_string())?,
                    None => true,
                };
                if !has_run || !slot.comm.poll()? {
                    continue;
                }
                slot.comm.finalize()?;
                slot.closing = true;
            }
            if slot.comm.poll()?
                && let Some(slot) = self.slots.remove(&number)
            {
                slot.comm.destroy()?;
            }
        }
        Ok(())
    }

    /// Takes everything out. If what is returned is dropped, all communicators end at once, with what they have under way.
    pub(super) fn take_all(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.queue.clone()))
    }
}
