//! The state of the block that runs, and how its instructions reach registers and memory.

use std::collections::{HashMap, VecDeque};

use crate::exec::barriers::BarrierState;
use crate::exec::bulk::BulkGroups;
use crate::exec::copies::ThreadCopies;
use crate::exec::mbarriers::MbarrierState;
use crate::exec::tiles::Task;
use crate::exec::warp::{Warp, lanes};
use crate::ir::{Address, Condition, LaneOrder, Operand, Reg, Special};
use crate::memory::{Accessor, Agents, Clocks, Conflict, DeviceMemory, RaceMap, SharedMemory};
use crate::module::Entry;
use crate::options::{Options, Stats};
use crate::report::{Finding, Step, problem};

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
    pub(super) agent: usize,
    pub(super) clock: u32,
    pub(super) atomic: bool,
    pub(super) writes: bool,
    pub(super) address: u64,
    pub(super) size: usize,
}

/// A block that runs.
pub(super) struct Block<'l, M: ?Sized> {
    pub(super) context: &'l Context<'l>,
    pub(super) memory: &'l mut M,
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
}

impl<M: DeviceMemory + ?Sized> Block<'_, M> {
    /// The values of an operand in all lanes.
    #[inline]
    pub(super) fn fetch(&self, w: usize, operand: Operand) -> [u64; 32] {
        match operand {
            Operand::Reg(reg) => self.warps[w].registers[reg as usize],
            Operand::Imm(value) => [value; 32],
            Operand::Variable(index) => [self.context.variables[index as usize]; 32],
            Operand::Dynamic => [self.context.dynamic.0 as u64; 32],
            Operand::Special(special) => self.special(w, special),
        }
    }

    fn special(&self, w: usize, special: Special) -> [u64; 32] {
        let of_lane =
            |f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| u64::from(f(lane as u32)));
        let (offset, size) = self.context.dynamic;
        match special {
            Special::Tid(dim) => self.warps[w].tid[dim].map(u64::from),
            Special::Ntid(dim) => [self.context.block[dim].into(); 32],
            Special::Ctaid(dim) => [self.id[dim].into(); 32],
            Special::Nctaid(dim) => [self.context.grid[dim].into(); 32],
            Special::LaneId => of_lane(&|lane| lane),
            Special::WarpId => [w as u64; 32],
            Special::NwarpId => [self.warps.len() as u64; 32],
            Special::LaneMask(order) => of_lane(&|lane| {
                let bit = 1u32 << lane;
                match order {
                    LaneOrder::Eq => bit,
                    LaneOrder::Lt => bit - 1,
                    LaneOrder::Le => bit | (bit - 1),
                    LaneOrder::Gt => !(bit | (bit - 1)),
                    LaneOrder::Ge => !(bit - 1),
                }
            }),
            Special::DynamicSharedSize => [size as u64; 32],
            Special::TotalSharedSize => [(offset + size) as u64; 32],
        }
    }

    /// The addresses of all lanes.
    pub(super) fn addresses(&self, w: usize, address: Address) -> [u64; 32] {
        self.fetch(w, address.base)
            .map(|base| base.wrapping_add(address.offset as u64))
    }

    /// The lanes in which a condition holds.
    pub(super) fn holds(&self, w: usize, condition: Condition) -> u32 {
        let values = self.fetch(w, condition.value);
        let set = values
            .iter()
            .enumerate()
            .fold(0, |mask, (lane, v)| mask | ((*v as u32 & 1) << lane));
        if condition.negated { !set } else { set }
    }

    /// Writes a register in some lanes.
    pub(super) fn put(&mut self, w: usize, mask: u32, reg: Reg, values: &[u64; 32]) {
        let register = &mut self.warps[w].registers[reg as usize];
        if mask == u32::MAX {
            *register = *values;
            return;
        }
        for lane in lanes(mask) {
            register[lane] = values[lane];
        }
    }

    /// The value that an operand has in all lanes of a mask.
    pub(super) fn uniform(&self, w: usize, mask: u32, operand: Operand, what: &str) -> Step<u64> {
        let values = self.fetch(w, operand);
        let mut all = lanes(mask).map(|lane| values[lane]);
        let first = all.next().unwrap_or(0);
        if all.any(|value| value != first) {
            return problem(
                Finding::Operand,
                format!("{what} differs between the lanes of a warp"),
            );
        }
        Ok(first)
    }

    fn accessor(&self, touch: &Touch) -> Accessor<'_> {
        Accessor {
            agent: touch.agent,
            clock: touch.clock,
            block: self.number,
            seen: self.clocks.row(touch.thread),
            atomic: touch.atomic,
        }
    }

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
        let mut races = std::mem::take(&mut self.shared_races);
        let found = races.access(
            &self.accessor(touch),
            touch.address,
            touch.size,
            touch.writes,
        );
        self.shared_races = races;
        found.or_else(|conflict| self.race(touch, conflict, "shared"))
    }

    /// Checks an access to global memory for races within the block and with other blocks.
    pub(super) fn touch_global(&mut self, touch: &Touch) -> Step<()> {
        if !self.context.options.races {
            return Ok(());
        }
        let by = Accessor {
            agent: touch.agent,
            clock: touch.clock,
            block: self.number,
            seen: self.clocks.row(touch.thread),
            atomic: touch.atomic,
        };
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
