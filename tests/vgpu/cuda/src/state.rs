//! What the calls of all threads share, and what was found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ptx_interp::Module;

use crate::clock::{Clock, join};
use crate::codes::{Code, Res};
use crate::config::Config;
use crate::graph::{Capture, Executable};
use crate::records::Record;
use crate::streams::{DeviceState, EventState, StreamQueue};

/// A module that was loaded into a context.
#[derive(Debug)]
pub(crate) struct LoadedModule {
    pub(crate) device: usize,
    pub(crate) loaded: bool,
    pub(crate) module: Arc<Module>,
    /// For each kernel, where its parameters hold pointers to global memory.
    pub(crate) pointers: Arc<[Vec<usize>]>,
    /// The addresses of the variables.
    pub(crate) variables: Arc<[u64]>,
}

/// A kernel of a loaded module.
#[derive(Debug)]
pub(crate) struct FunctionState {
    pub(crate) module: usize,
    pub(crate) entry: usize,
    /// What the program allowed as dynamic shared memory.
    pub(crate) most_dynamic: usize,
}

/// What ran.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) operations: u64,
    pub(crate) reports: usize,
    /// Of each kind of operation, by its label.
    pub(crate) kinds: HashMap<String, Kind>,
}

/// What operations of one label took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) count: u64,
    pub(crate) lane_instructions: u64,
    pub(crate) time: Duration,
}

/// Everything behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Arc<Config>,
    pub(crate) devices: Vec<DeviceState>,
    pub(crate) streams: Vec<StreamQueue>,
    pub(crate) events: Vec<EventState>,
    pub(crate) modules: Vec<LoadedModule>,
    pub(crate) functions: Vec<FunctionState>,
    pub(crate) captures: Vec<Capture>,
    pub(crate) graphs: Vec<Option<Arc<Capture>>>,
    pub(crate) executables: Vec<Option<Executable>>,
    pub(crate) records: Vec<Record>,
    /// Pairs of operations of which a race was reported.
    pub(crate) reported: HashSet<[u64; 4]>,
    pub(crate) totals: Totals,
    /// Virtual time, for events.
    pub(crate) nanoseconds: u64,
    /// What the host knows to be complete: all of its threads, since a driver does not see how these wait for each other.
    pub(crate) host: Clock,
    /// The text of the last finding with a code.
    pub(crate) texts: HashMap<Code, String>,
    /// What the next call that synchronises returns.
    pending: Option<(Code, String)>,
    random: u64,
}

impl State {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let (devices, random) = (config.devices, config.seed);
        let mut state = Self {
            config,
            devices: Vec::new(),
            streams: Vec::new(),
            events: Vec::new(),
            modules: Vec::new(),
            functions: Vec::new(),
            captures: Vec::new(),
            graphs: Vec::new(),
            executables: Vec::new(),
            records: Vec::new(),
            reported: HashSet::new(),
            totals: Totals::default(),
            nanoseconds: 0,
            host: Clock::new(),
            texts: HashMap::new(),
            pending: None,
            random,
        };
        for device in 0..devices {
            let (legacy, frees) = (
                state.new_stream(device, true),
                state.new_stream(device, false),
            );
            state.streams[legacy].legacy = true;
            state.streams[frees].internal = true;
            state.devices.push(DeviceState {
                retained: 0,
                legacy,
                frees,
                peers: Default::default(),
                pool_threshold: 0,
                peak: 0,
            });
        }
        state
    }

    pub(crate) fn new_stream(&mut self, device: usize, blocking: bool) -> usize {
        self.streams.push(StreamQueue::new(device, blocking));
        self.streams.len() - 1
    }

    /// A number below `bound`, from the seed (splitmix64).
    pub(crate) fn draw(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// Notes a finding: the next call that synchronises returns the code.
    pub(crate) fn report(&mut self, code: Code, text: String) {
        self.say(&text);
        match &mut self.pending {
            Some((_, all)) => {
                all.push_str("\n  ");
                all.push_str(&text);
            }
            None => self.pending = Some((code, text)),
        }
    }

    /// A finding that the present call returns.
    pub(crate) fn refuse<T>(&mut self, code: Code, text: String) -> Res<T> {
        self.say(&text);
        self.texts.insert(code, text);
        Err(code)
    }

    fn say(&mut self, text: &str) {
        self.totals.reports += 1;
        eprintln!("vgpu: {text}");
    }

    /// What a call that synchronises returns.
    pub(crate) fn take_findings(&mut self) -> Res {
        match self.pending.take() {
            None => Ok(()),
            Some((code, text)) => {
                self.texts.insert(code, text);
                Err(code)
            }
        }
    }

    /// The host learns that what a clock knows is complete.
    pub(crate) fn host_learns(&mut self, clock: &[u64]) {
        join(&mut self.host, clock);
    }

    /// The bytes of a device that are allocated. A queued free counts as done: a driver would wait for it.
    pub(crate) fn live_bytes(&self, device: usize) -> usize {
        let records = self.records.iter();
        records
            .filter(|record| record.device == Some(device) && record.is_live())
            .map(|record| record.size)
            .sum()
    }

    /// The bytes of a device that can still be allocated.
    pub(crate) fn free_bytes(&self, device: usize) -> usize {
        let made = self.records.iter();
        let made = made.filter(|record| record.device == Some(device)).count();
        let all = match device == self.config.little_on {
            true => 1 << 20,
            false => self.config.memory_bytes,
        };
        match made < self.config.taken_after {
            true => all.saturating_sub(self.live_bytes(device)),
            false => 0,
        }
    }

    /// The pinned allocation that holds a range of the host's memory, and where the range begins in it.
    pub(crate) fn pinned(&self, address: u64, len: usize) -> Option<(usize, usize)> {
        let mut records = self.records.iter().enumerate().rev();
        let (id, record) = records.find(|(_, record)| {
            record.device.is_none()
                && record.is_live()
                && address >= record.base
                && address + len as u64 <= record.base + record.size as u64
        })?;
        Some((id, (address - record.base) as usize))
    }

    /// A queued or running operation that uses some bytes of pinned memory.
    pub(crate) fn pinned_user(&self, id: usize, start: usize, len: usize) -> Option<String> {
        let streams = self.streams.iter();
        let unfinished = streams.flat_map(|stream| stream.running.iter().chain(&stream.queue));
        let mut users = unfinished.filter_map(|(operation, work)| {
            let (of, at, bytes) = work.pinned()?;
            (of == id && at < start + len && start < at + bytes).then_some(operation)
        });
        users.next().map(ToString::to_string)
    }
}
