//! Vector clocks: what each thread of a block knows of the others.
//!
//! Everything that accesses memory is an agent: each thread, and each unit that copies or multiplies for a thread, a warp or
//! an mbarrier. An agent's accesses carry its clock. A thread has seen an access if the thread's entry for the agent is
//! at least that clock.

/// The numbers of all agents of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agents {
    pub(crate) threads: usize,
    /// The first of the units that run `cp.async` of a thread, and so on.
    copies: usize,
    bulk: usize,
    wgmma: usize,
    mbarriers: usize,
    total: usize,
}

/// The mbarriers that have an agent of their own; more of them share the last one.
pub(crate) const MBARRIERS: usize = 64;

/// Which asynchronous units a kernel uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Units {
    pub(crate) copies: bool,
    pub(crate) bulk: bool,
    pub(crate) wgmma: bool,
    pub(crate) mbarriers: bool,
}

impl Agents {
    /// The agents of a block of so many threads. Units start at multiples of 32, like warps.
    pub(crate) fn new(threads: usize, units: Units) -> Self {
        let round = threads.next_multiple_of(32);
        let mut end = round;
        let mut take = |used: bool, count: usize| {
            let first = end;
            end += if used { count } else { 0 };
            first
        };
        let copies = take(units.copies, round);
        let bulk = take(units.bulk, round);
        let wgmma = take(units.wgmma, round);
        let mbarriers = take(units.mbarriers, MBARRIERS);
        Self {
            threads,
            copies,
            bulk,
            wgmma,
            mbarriers,
            total: end,
        }
    }

    /// The number of agents.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn copies(&self, thread: usize) -> usize {
        self.copies + thread
    }

    pub(crate) fn bulk(&self, thread: usize) -> usize {
        self.bulk + thread
    }

    pub(crate) fn wgmma(&self, warp: usize) -> usize {
        self.wgmma + warp
    }

    pub(crate) fn mbarrier(&self, number: usize) -> usize {
        self.mbarriers + number.min(MBARRIERS - 1)
    }

    /// What an agent is, for reports.
    pub(crate) fn describe(&self, agent: usize) -> String {
        if agent >= self.mbarriers {
            format!(
                "an asynchronous copy that signals mbarrier {}",
                agent - self.mbarriers
            )
        } else if agent >= self.wgmma {
            format!("a wgmma of warp {}", agent - self.wgmma)
        } else if agent >= self.bulk {
            format!("a bulk copy of thread {}", agent - self.bulk)
        } else if agent >= self.copies {
            format!("a cp.async of thread {}", agent - self.copies)
        } else {
            format!("thread {agent}")
        }
    }
}

/// The clocks of all threads of a block.
#[derive(Debug)]
pub(crate) struct Clocks {
    width: usize,
    rows: Vec<u32>,
    /// The own clock of each thread, as in its row.
    own: Vec<u32>,
    /// What all threads know.
    common: Vec<u32>,
    /// The least entry of `common` for each group of 32 agents.
    floors: Vec<u32>,
}

impl Clocks {
    pub(crate) fn new(agents: &Agents) -> Self {
        let mut clocks = Self {
            width: agents.total,
            rows: vec![0; agents.threads * agents.total],
            own: vec![0; agents.threads],
            common: vec![0; agents.total],
            floors: vec![0; agents.total.div_ceil(32)],
        };
        for thread in 0..agents.threads {
            clocks.tick(thread);
        }
        clocks
    }

    /// No clocks at all, for a launch without checks for races.
    pub(crate) fn none() -> Self {
        Self {
            width: 0,
            rows: Vec::new(),
            own: Vec::new(),
            common: Vec::new(),
            floors: Vec::new(),
        }
    }

    /// A clock of something that threads release to and acquire from.
    pub(crate) fn empty(&self) -> Vec<u32> {
        vec![0; self.width]
    }

    /// What a thread knows.
    pub(crate) fn row(&self, thread: usize) -> &[u32] {
        &self.rows[thread * self.width..][..self.width]
    }

    /// What a thread and those after it know, `width` entries each.
    pub(crate) fn rows_from(&self, thread: usize) -> &[u32] {
        &self.rows[thread * self.width..]
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// What all threads know.
    pub(crate) fn common(&self) -> &[u32] {
        &self.common
    }

    /// All threads have learnt what they released.
    pub(crate) fn all_met(&mut self, released: &[u32]) {
        join(&mut self.common, released);
        for (floor, group) in self.floors.iter_mut().zip(self.common.chunks(32)) {
            *floor = group.iter().copied().min().unwrap_or(0);
        }
    }

    pub(crate) fn floors(&self) -> &[u32] {
        &self.floors
    }

    fn row_mut(&mut self, thread: usize) -> &mut [u32] {
        &mut self.rows[thread * self.width..][..self.width]
    }

    /// The own clock of a thread.
    pub(crate) fn own(&self, thread: usize) -> u32 {
        self.own[thread]
    }

    /// Whether the own clocks of some threads are equal.
    pub(crate) fn agree(&self, first: usize, count: usize) -> bool {
        let clock = self.own(first);
        self.own[first..first + count]
            .iter()
            .all(|own| *own == clock)
    }

    fn tick(&mut self, thread: usize) {
        self.own[thread] += 1;
        self.rows[thread * self.width + thread] = self.own[thread];
    }

    /// The thread learns that an agent has reached a clock.
    pub(crate) fn learn(&mut self, thread: usize, agent: usize, clock: u32) {
        let entry = &mut self.row_mut(thread)[agent];
        *entry = (*entry).max(clock);
    }

    /// The thread publishes what it knows; what it does later is not included.
    pub(crate) fn release(&mut self, thread: usize, into: &mut [u32]) {
        join(into, self.row(thread));
        self.tick(thread);
    }

    /// The thread learns what it and others released, after which it has done nothing else: the result is a copy.
    pub(crate) fn meet(&mut self, thread: usize, from: &[u32]) {
        let own = self.own(thread);
        let row = self.row_mut(thread);
        row.copy_from_slice(from);
        row[thread] = own;
    }

    /// The thread learns what others released.
    pub(crate) fn acquire(&mut self, thread: usize, from: &[u32]) {
        join(self.row_mut(thread), from);
    }
}

/// The greater of two clocks, for each agent.
pub(crate) fn join(into: &mut [u32], from: &[u32]) {
    for (a, b) in into.iter_mut().zip(from) {
        *a = (*a).max(*b);
    }
}
