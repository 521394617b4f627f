//! What a transport implements, and what it is handed.

use crate::Result;
use std::fmt;
use xdit_kernels::{DType, Shape, Tensor};

/// Shape and dtype of a tensor that is still to come. Every rank knows them from the plan; none is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Sizes of the dims.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl Spec {
    /// A spec of this shape and dtype.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        Self {
            shape: shape.into(),
            dtype,
        }
    }

    /// The spec that this tensor has.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.shape(), tensor.dtype())
    }

    /// Bytes of such a tensor.
    pub fn bytes(&self) -> usize {
        self.shape.numel().saturating_mul(self.dtype.size())
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.shape, self.dtype)
    }
}

/// How values of several ranks become one. Exhaustive, as [`Op`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Element by element, in rank order, in f32.
    Sum,
    /// Largest element.
    Max,
}

/// An operation of a group. Exhaustive: a transport that does not know a new one must not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// To one rank.
    Send {
        /// The receiver.
        dst: usize,
    },
    /// From one rank.
    Recv {
        /// The sender.
        src: usize,
    },
    /// Root's tensor to all.
    Broadcast {
        /// The sender.
        root: usize,
    },
    /// Root's i-th tensor to rank i.
    Scatter {
        /// The sender.
        root: usize,
    },
    /// All tensors to the root, in rank order.
    Gather {
        /// The receiver.
        root: usize,
    },
    /// All tensors to all, in rank order.
    AllGather,
    /// One tensor made of all, to all.
    AllReduce(ReduceOp),
    /// Rank i gets the i-th part of what all_reduce would give.
    ReduceScatter(ReduceOp),
    /// Rank i's j-th tensor becomes rank j's i-th.
    AllToAll,
    /// Nothing, when all have come.
    Barrier,
}

impl Op {
    /// Its name, as in NCCL and MPI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Recv { .. } => "recv",
            Self::Broadcast { .. } => "broadcast",
            Self::Scatter { .. } => "scatter",
            Self::Gather { .. } => "gather",
            Self::AllGather => "all_gather",
            Self::AllReduce(_) => "all_reduce",
            Self::ReduceScatter(_) => "reduce_scatter",
            Self::AllToAll => "all_to_all",
            Self::Barrier => "barrier",
        }
    }

    /// Whether every rank of the group calls it.
    pub fn is_collective(self) -> bool {
        !matches!(self, Self::Send { .. } | Self::Recv { .. })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { dst } => write!(f, "send to {dst}"),
            Self::Recv { src } => write!(f, "recv from {src}"),
            Self::Broadcast { root } | Self::Scatter { root } | Self::Gather { root } => {
                write!(f, "{} with root {root}", self.name())
            }
            Self::AllReduce(how) | Self::ReduceScatter(how) => {
                write!(f, "{} ({how:?})", self.name())
            }
            _ => f.write_str(self.name()),
        }
    }
}

/// One rank's part in one operation: what it gives and what it expects, in rank order.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation.
    pub op: Op,
    /// What this rank gives: one tensor for each receiver where receivers differ, else one, else none.
    pub gives: Vec<Tensor>,
    /// What this rank expects: one spec a tensor that will come back. Exact; anything else is an error on both sides.
    pub expects: Vec<Spec>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gives: Vec<Spec> = self.gives.iter().map(Spec::of).collect();
        write!(
            f,
            "{}, gives {gives:?}, expects {:?}",
            self.op, self.expects
        )
    }
}

/// A started operation.
pub trait Ticket: Send + fmt::Debug {
    /// The tensors that this rank expected, when they are there.
    ///
    /// # Errors
    /// [`PeerLost`](crate::Error::PeerLost) if a rank that it needs failed; [`Disagree`](crate::Error::Disagree).
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>>;
}

/// One rank's end of a group: what a transport (threads, NCCL, MPI, a user's own) implements.
///
/// Contract: ranks start the same collectives in the same order; between two ranks, messages arrive in the order sent.
/// `start` never waits for another rank. A failure anywhere makes every started or later call return within the
/// deadline, naming the rank at fault. [`conformance`](crate::conformance) tests all of it.
pub trait Backend: Send + Sync + fmt::Debug {
    /// My index in the group.
    fn rank(&self) -> usize;
    /// How many ranks it has.
    fn world_size(&self) -> usize;
    /// Starts an operation; arguments were checked by [`Group`](crate::Group).
    ///
    /// # Errors
    /// If a failure is already known.
    fn start(&self, call: Call) -> Result<Box<dyn Ticket>>;
    /// The subgroup of the ranks that give the same color, ordered by key, then rank. Collective.
    ///
    /// # Errors
    /// As a collective.
    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>>;

    /// Notes that this rank has finished an operation of its own, so that nobody takes it for lost. Cheap. A
    /// transport around another hands it on.
    ///
    /// # Errors
    /// If a failure is already known.
    fn progress(&self) -> Result<()> {
        Ok(())
    }
}
