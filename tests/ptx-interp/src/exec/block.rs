//! The state of the block that runs, and how its instructions reach registers and memory.

use std::collections::{HashMap, VecDeque};

use crate::exec::barriers::BarrierState;
use crate::exec::bulk::BulkGroups;
use crate::exec::copies::ThreadCopies;
use crate::exec::mbarriers::MbarrierState;
use crate::exec::tiles::Task;
use crate::exec::warp::Warp;
use crate::memory::{Accessor, Agents, Clocks, Conflict, DeviceMemory, RaceMap, SharedMemory};
use crate::module::Entry;
use crate::options::{Options, Stats};
use crate::report::{Finding, Step, problem};
use crate::scalar::Lanes;

/// What is the same for all blocks of a launch.
#[derive(Debug)]
pub(super) struct Context<'l> {
    pub(super) entry: &'l Entry,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) params: &'l [u8],
    pub(super) variables: &'l [u64],
    /// Where dynamic shared memory begins, and how long it is.
    pub(super) dynamic: (usize, usize),
    pub(super) options: Options,
    pub(super) agents: Agents,
}

impl Context<'_> {
    pub(super) fn threads(&self) -> usize {
        self.block.iter().map(|d| *d as usize).product()
    }
}

/// An access to be checked for races.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    /// The thread that issued it.
    pub(super) thread: usize,
    /// The threads that read the same at the same clock: bit i is the thread `thread + i` of its warp.
    pub(super) others: u32,
    pub(super) agent: usize,
    pub(super) clock: u32,
    pub(super) atomic: bool,
    pub(super) writes: bool,
    pub(super) address: u64,
    pub(super) size: usize,
}

fn accessor<'c>(clocks: &'c Clocks, block: u32, touch: &Touch) -> Accessor<'c> {
    Accessor {
        agent: touch.agent,
        clock: touch.clock,
        block,
        seen: clocks.rows_from(touch.thread),
        agents: clocks.width(),
        others: touch.others,
        common: clocks.common(),
        floors: clocks.floors(),
        atomic: touch.atomic,
    }
}

/// A block that runs.
pub(super) struct Block<'l> {
    pub(super) context: &'l Context<'l>,
    pub(super) memory: &'l mut dyn DeviceMemory,
    pub(super) global_races: &'l mut RaceMap,
    pub(super) stats: &'l mut Stats,
    pub(super) id: [u32; 3],
    /// The number of the block in its grid.
    pub(super) number: u32,
    pub(super) shared: SharedMemory,
    pub(super) shared_races: RaceMap,
    pub(super) clocks: Clocks,
    pub(super) warps: Vec<Warp>,
    pub(super) barriers: Vec<BarrierState>,
    pub(super) mbarriers: HashMap<u64, MbarrierState>,
    pub(super) copies: Vec<ThreadCopies>,
    pub(super) bulk_groups: Vec<BulkGroups>,
    /// The clocks of agents that are no threads and count for themselves.
    pub(super) unit_clocks: Vec<u32>,
    /// Operations of the asynchronous unit that have not taken effect.
    pub(super) tasks: VecDeque<Task>,
    /// Writes by threads that a proxy fence has passed on to the asynchronous units: for each thread a clock.
    pub(super) fenced: Vec<u32>,
    /// Counts what may let a waiting thread continue.
    pub(super) changes: u64,
    /// Values of operands that are no registers.
    pub(super) scratch: [Lanes; 4],
}

impl Block<'_> {
    /// An access by a thread itself.
    pub(super) fn by_thread(
        &self,
        thread: usize,
        address: u64,
        size: usize,
        writes: bool,
    ) -> Touch {
        let clock = if self.context.options.races {
            self.clocks.own(thread)
        } else {
            0
        };
        Touch {
            thread,
            others: 0,
            agent: thread,
            clock,
            atomic: false,
            writes,
            address,
            size,
        }
    }

    /// Checks an access to shared memory for races.
    pub(super) fn touch_shared(&mut self, touch: &Touch) -> Step<()> {
        if !self.context.options.races {
            return Ok(());
        }
        let by = accessor(&self.clocks, self.number, touch);
        let found = self
            .shared_races
            .access(&by, touch.address, touch.size, touch.writes);
        found.or_else(|conflict| self.race(touch, conflict, "shared"))
    }

    /// Checks an access to global memory for races within the block and with other blocks.
    pub(super) fn touch_global(&mut self, touch: &Touch) -> Step<()> {
        if !self.context.options.races {
            return Ok(());
        }
        let by = accessor(&self.clocks, self.number, touch);
        let found = self
            .global_races
            .access(&by, touch.address, touch.size, touch.writes);
        found.or_else(|conflict| self.race(touch, conflict, "global"))
    }

    fn race(&self, touch: &Touch, other: Conflict, space: &str) -> Step<()> {
        let verb = |writes| if writes { "write" } else { "read" };
        let agents = &self.context.agents;
        let by = agents.describe(other.agent);
        let whose = if other.block == self.number {
            format!("{by}, and nothing orders the two")
        } else {
            let [x, y, _] = self.context.grid;
            let n = other.block;
            format!(
                "{by} of block ({}, {}, {}): blocks of a launch are not ordered",
                n % x,
                n / x % y,
                n / x / y
            )
        };
        let message = format!(
            "a race: the {} of {} bytes at {:#x} of {space} memory by {} meets a {} by {whose}",
            verb(touch.writes),
            touch.size,
            touch.address,
            agents.describe(touch.agent),
            verb(other.wrote),
        );
        problem(Finding::Race, message)
    }
}
