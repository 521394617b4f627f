//! How a launch runs, and what it counted.

/// The order in which the warps of a block take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarpOrder {
    /// Each warp executes a few instructions, then the next one continues.
    RoundRobin,
    /// A warp runs until it must wait.
    Greedy,
    /// Warps and the lengths of their turns are drawn from a generator with this seed; so is the order of the blocks.
    Random(u64),
}

/// When asynchronous copies and `wgmma` take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// When they are issued.
    Early,
    /// As late as the kernel allows: when a thread waits for them, or when nothing else can run.
    Late,
}

/// How a launch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The order of warps.
    pub order: WarpOrder,
    /// When asynchronous operations take effect.
    pub completion: Completion,
    /// The most instructions of warps that a launch may execute; more are reported as a livelock.
    pub budget: u64,
    /// Whether accesses to shared and global memory are checked for races. Without it a launch is faster.
    pub races: bool,
    /// The bytes of shared memory that a block may have.
    pub shared_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            order: WarpOrder::RoundRobin,
            completion: Completion::Late,
            budget: 1 << 32,
            races: true,
            shared_limit: 227 * 1024,
        }
    }
}

impl Options {
    /// These options with another order of warps.
    pub fn with_order(self, order: WarpOrder) -> Self {
        Self { order, ..self }
    }

    /// These options with another time of completion.
    pub fn with_completion(self, completion: Completion) -> Self {
        Self { completion, ..self }
    }
}

/// The class of an instruction in `Stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// `mma` and `wgmma`.
    Tensor,
    /// Functions of the special unit: `ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`, `sin`, `cos`, `tanh`.
    Exp,
    /// Loads, stores and atomics that name shared memory, `ldmatrix` and `stmatrix`.
    Shared,
    /// Loads, stores and atomics that name global memory or no space, and asynchronous copies between it and shared memory.
    Global,
    /// Barriers of blocks, and waits for mbarriers.
    Barrier,
    /// Everything else.
    Other,
}

/// What a launch executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions, each counted once for a warp.
    pub warp_instructions: u64,
    /// Instructions, each counted for every lane that executed it.
    pub lane_instructions: u64,
    by_class: [u64; 6],
}

impl Stats {
    /// The warp instructions of a class.
    pub fn of(&self, class: Class) -> u64 {
        self.by_class[class as usize]
    }

    pub(crate) fn count(&mut self, class: Class, lanes: u32) {
        self.warp_instructions += 1;
        self.lane_instructions += u64::from(lanes);
        self.by_class[class as usize] += 1;
    }
}

/// A small generator of pseudo-random numbers (xorshift64*): schedules must be the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        drawn as usize % bound
    }
}
