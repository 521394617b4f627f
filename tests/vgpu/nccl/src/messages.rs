//! Messages: how sends meet receives, and when the operation of a group may end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::journal::{self, Event};
use crate::meetings::MeetingId;
use crate::status::bytes_of;

/// The operation of a group in its stream, as its peers see it.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) stream: u64,
    pub(crate) label: String,
    /// Whether the stream has come to it.
    pub(crate) arrived: AtomicBool,
    /// Whether what it receives is there.
    pub(crate) delivered: AtomicBool,
    /// Whether its communicator was aborted.
    pub(crate) aborted: Arc<AtomicBool>,
}

/// How many numbers of which type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) count: usize,
    pub(crate) dtype: u32,
}

impl Extent {
    pub(crate) fn bytes(self) -> usize {
        self.count.saturating_mul(bytes_of(self.dtype).unwrap_or(0))
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} numbers of type {}", self.count, self.dtype)
    }
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Parcel {
    lane: (usize, usize),
    extent: Extent,
    from: Arc<Presence>,
    taker: OnceLock<Arc<Presence>>,
    data: Mutex<Vec<u8>>,
}

impl Parcel {
    pub(crate) fn bytes(&self) -> usize {
        self.extent.bytes()
    }

    pub(crate) fn fill(&self, bytes: &[u8]) {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.clear();
        data.extend_from_slice(bytes);
    }
}

/// What a receive waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    lane: (usize, usize),
    extent: Extent,
    by: Arc<Presence>,
    parcel: OnceLock<Arc<Parcel>>,
}

impl Wanted {
    pub(crate) fn bytes(&self) -> usize {
        self.extent.bytes()
    }

    /// Writes what has come. If the group was given up, that may be nothing.
    pub(crate) fn take(&self, to: &mut [u8]) {
        if let Some(parcel) = self.parcel.get() {
            let data = parcel.data.lock().unwrap_or_else(PoisonError::into_inner);
            let len = data.len().min(to.len());
            to[..len].copy_from_slice(&data[..len]);
        }
    }
}

/// The operation of a group of one communicator.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) presence: Arc<Presence>,
    /// With the addresses of their buffers.
    pub(crate) sends: Vec<(u64, Arc<Parcel>)>,
    pub(crate) wants: Vec<(u64, Arc<Wanted>)>,
    /// What its process tells others of it, if ranks of them take part.
    pub(crate) notice: Option<Notice>,
}

/// The name of a group in other processes: its clique in a meeting, its rank, its number.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) meeting: MeetingId,
    pub(crate) clique: String,
    pub(crate) rank: usize,
    pub(crate) number: usize,
    /// The ranks of other processes.
    pub(crate) elsewhere: HashSet<usize>,
}

impl Launch {
    /// Whether a peer is there, and this group is not.
    pub(crate) fn is_awaited(&self) -> bool {
        let is_there = |peer: &Arc<Presence>| peer.arrived.load(Ordering::Acquire);
        let mut takers = self.sends.iter().filter_map(|(_, it)| it.taker.get());
        let mut parcels = self.wants.iter().filter_map(|(_, it)| it.parcel.get());
        !is_there(&self.presence)
            && (takers.any(is_there) || parcels.any(|parcel| is_there(&parcel.from)))
    }

    /// The stream has come to the group, with the bytes that it sends. Other processes hear of it once.
    pub(crate) fn arrive(&self, sent: &[&[u8]]) {
        for ((_, parcel), bytes) in self.sends.iter().zip(sent) {
            parcel.fill(bytes);
        }
        let is_first = !self.presence.arrived.swap(true, Ordering::AcqRel);
        if let (true, Some(notice)) = (is_first, &self.notice) {
            let data = self.sends.iter().zip(sent).map(|((_, parcel), bytes)| {
                match notice.elsewhere.contains(&parcel.lane.1) {
                    true => bytes.to_vec(),
                    false => Vec::new(),
                }
            });
            let event = Event::Arrived {
                clique: notice.clique.clone(),
                rank: notice.rank,
                number: notice.number,
                data: data.collect(),
            };
            journal::write(notice.meeting, &event);
        }
    }

    /// Whether all peers are there: 0; otherwise a stream that must get on first, or 1 if nobody has called yet what it waits for.
    pub(crate) fn sight(&self) -> u64 {
        const OPEN: u64 = 0;
        const CLOSED: u64 = 1;
        if self.presence.aborted.load(Ordering::Acquire) {
            return OPEN;
        }
        let takers = self.sends.iter().map(|(_, parcel)| parcel.taker.get());
        let givers = self.wants.iter();
        let givers = givers.map(|(_, wanted)| wanted.parcel.get().map(|parcel| &parcel.from));
        let mut sight = OPEN;
        for peer in takers.chain(givers) {
            match peer {
                None => sight = CLOSED,
                Some(peer) if peer.arrived.load(Ordering::Acquire) => {}
                Some(peer) => return peer.stream,
            }
        }
        sight
    }
}

/// Sends and receives that have not met, of the ranks of one communicator: by sender and receiver.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Where a message has been. Before the first one, sender and receiver must connect, for which both must have called.
    connected: HashSet<(usize, usize)>,
    sends: HashMap<(usize, usize), VecDeque<Arc<Parcel>>>,
    wants: HashMap<(usize, usize), VecDeque<Arc<Wanted>>>,
}

/// What is wrong with two messages that have met.
fn mismatch(lane: (usize, usize), sent: Extent, wanted: Extent) -> Option<String> {
    let (from, to) = lane;
    (sent != wanted)
        .then(|| format!("rank {from} sends {sent} to rank {to}, which receives {wanted}"))
}

impl Lanes {
    /// Connects what a group needs. Returns false if that must wait for another rank.
    pub(crate) fn connect(&mut self, launch: &Launch) -> bool {
        let sends = launch.sends.iter();
        let sends = sends.map(|(_, parcel)| (parcel.lane, parcel.taker.get().is_some()));
        let wants = launch.wants.iter();
        let wants = wants.map(|(_, wanted)| (wanted.lane, wanted.parcel.get().is_some()));
        for (lane, has_met) in sends.chain(wants) {
            if has_met {
                self.connected.insert(lane);
            } else if !self.connected.contains(&lane) {
                return false;
            }
        }
        true
    }

    pub(crate) fn send(
        &mut self,
        lane: (usize, usize),
        extent: Extent,
        from: &Arc<Presence>,
        faults: &mut Vec<String>,
    ) -> Arc<Parcel> {
        let parcel = Arc::new(Parcel {
            lane,
            extent,
            from: Arc::clone(from),
            taker: OnceLock::new(),
            data: Mutex::default(),
        });
        match self.wants.entry(lane).or_default().pop_front() {
            None => {
                let sends = self.sends.entry(lane).or_default();
                sends.push_back(Arc::clone(&parcel));
            }
            Some(wanted) => {
                faults.extend(mismatch(lane, extent, wanted.extent));
                // Both are new in their lane, so neither has met anybody.
                let _ = parcel.taker.set(Arc::clone(&wanted.by));
                let _ = wanted.parcel.set(Arc::clone(&parcel));
            }
        }
        parcel
    }

    pub(crate) fn receive(
        &mut self,
        lane: (usize, usize),
        extent: Extent,
        by: &Arc<Presence>,
        faults: &mut Vec<String>,
    ) -> Arc<Wanted> {
        let wanted = Arc::new(Wanted {
            lane,
            extent,
            by: Arc::clone(by),
            parcel: OnceLock::new(),
        });
        match self.sends.entry(lane).or_default().pop_front() {
            None => {
                let wants = self.wants.entry(lane).or_default();
                wants.push_back(Arc::clone(&wanted));
            }
            Some(parcel) => {
                faults.extend(mismatch(lane, parcel.extent, extent));
                // As above.
                let _ = parcel.taker.set(Arc::clone(by));
                let _ = wanted.parcel.set(parcel);
            }
        }
        wanted
    }
}
