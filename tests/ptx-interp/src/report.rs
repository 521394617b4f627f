//! What a launch reports: one finding, with the place in the PTX and in the grid.

use std::fmt;

/// What kind of error a kernel made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finding {
    /// The launch itself is not possible: the grid, the shared memory or the parameters.
    Launch,
    /// An access outside of an allocation, of shared memory, of local memory or of the parameters.
    OutOfBounds,
    /// An access whose address is not a multiple of its size.
    Misaligned,
    /// A read of bytes that nobody wrote.
    NeverWritten,
    /// Two accesses, one of them a write, that nothing orders.
    Race,
    /// Lanes of a warp that do not execute a collective instruction together.
    Divergence,
    /// A barrier that not all of its threads reach, or with another number of threads.
    Barrier,
    /// A wrong use of an mbarrier, or of a copy that signals one.
    Mbarrier,
    /// A wrong operand: of a descriptor, a mask, a lane number, a size.
    Operand,
    /// All warps wait for each other.
    Deadlock,
    /// The launch executed more instructions than `Options::budget` allows.
    Budget,
    /// The kernel executed `trap`.
    Trap,
}

/// A finding before its place is known.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) finding: Finding,
    pub(crate) lane: Option<usize>,
    pub(crate) message: String,
}

/// The result of a step that may fail.
pub(crate) type Step<T> = Result<T, Box<Problem>>;

pub(crate) fn problem<T>(finding: Finding, message: impl Into<String>) -> Step<T> {
    Err(Box::new(Problem {
        finding,
        lane: None,
        message: message.into(),
    }))
}

/// Names the lane that a failing step was working for.
pub(crate) fn at_lane<T>(lane: usize, step: Step<T>) -> Step<T> {
    step.map_err(|mut problem| {
        problem.lane.get_or_insert(lane);
        problem
    })
}

/// The place of an instruction: its line in the PTX and the text there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// The line without the space around it.
    pub text: String,
}

/// The error that ended a launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    /// The kind of the error.
    pub finding: Finding,
    /// The name of the kernel.
    pub entry: String,
    /// The block that was running, if the launch began.
    pub block: Option<[u32; 3]>,
    /// The number of the thread within its block, where one thread is to blame.
    pub thread: Option<u32>,
    /// The instruction, where one is to blame.
    pub place: Option<Place>,
    /// What happened, with addresses and numbers.
    pub message: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.entry)?;
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some(thread) = self.thread {
            write!(f, ", thread {thread}")?;
        }
        if let Some(place) = &self.place {
            write!(f, ", PTX line {} `{}`", place.line, place.text)?;
        }
        write!(f, ": {}", self.message)
    }
}
