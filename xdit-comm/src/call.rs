//! One rank's part in an operation, and its checks.

use crate::{Error, Result};
use std::fmt;
use xdit_kernels::{DType, Shape, Tensor};

/// Shape and dtype of a tensor that will arrive. Every rank knows them from its plan, so ranks never send shapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Sizes of the dims.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl Spec {
    /// Creates a spec of this shape and dtype.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        Self {
            shape: shape.into(),
            dtype,
        }
    }

    /// Returns the spec of this tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.shape(), tensor.dtype())
    }

    /// Returns the number of bytes of such a tensor.
    pub fn bytes(&self) -> usize {
        self.shape.numel().saturating_mul(self.dtype.size())
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.shape, self.dtype)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a reduction combines the values of several ranks. Exhaustive, like [`Op`].
///
/// Only floats are reduced: tensors of integers are an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// The sum of each element in f32, rounded once to the tensor's dtype. The backend chooses the order of the ranks;
    /// [`threads`](crate::threads) adds in rank order. All ranks get the same bytes.
    Sum,
    /// The mean of each element: the sum in f32 as [`Sum`](Self::Sum) adds it, then divided in f32 by the number of ranks, then
    /// rounded once to the tensor's dtype. A sum above the largest f32 is infinite, and so is its mean. All ranks get the same
    /// bytes. A mean sends as many bytes as a sum.
    Mean,
    /// The maximum of each element. NaN if a rank has NaN.
    Max,
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "max",
        })
    }
}

/// An operation of a group. Exhaustive, so that a transport without a new operation does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Sends one tensor to one rank.
    Send {
        /// The receiver.
        dst: usize,
    },
    /// Receives one tensor from one rank.
    Recv {
        /// The sender.
        src: usize,
    },
    /// Sends the root's tensor to all ranks.
    Broadcast {
        /// The sender.
        root: usize,
    },
    /// Sends the root's i-th tensor to rank i.
    Scatter {
        /// The sender.
        root: usize,
    },
    /// Sends the tensors of all ranks to the root, in rank order.
    Gather {
        /// The receiver.
        root: usize,
    },
    /// Sends the tensors of all ranks to all ranks, in rank order.
    AllGather,
    /// Reduces the tensors of all ranks and sends the result to all ranks.
    AllReduce(ReduceOp),
    /// Reduces the tensors of all ranks and sends the i-th part of the result to rank i.
    ReduceScatter(ReduceOp),
    /// Sends the j-th tensor of rank i to rank j, for all i and j.
    AllToAll,
    /// Waits until all ranks have called it.
    Barrier,
}

impl Op {
    /// Returns the name of the operation, as in NCCL and MPI.
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

    /// Returns an operation of this [`name`](Self::name); ranks and kinds of reductions are any.
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::Op;
    /// assert_eq!(Op::named("all_to_all"), Some(Op::AllToAll));
    /// assert_eq!(Op::named("shout"), None);
    /// ```
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Send { dst: 0 },
            Self::Recv { src: 0 },
            Self::Broadcast { root: 0 },
            Self::Scatter { root: 0 },
            Self::Gather { root: 0 },
            Self::AllGather,
            Self::AllReduce(ReduceOp::Sum),
            Self::ReduceScatter(ReduceOp::Sum),
            Self::AllToAll,
            Self::Barrier,
        ];
        all.into_iter().find(|op| op.name() == name)
    }

    /// Returns whether every rank of the group must call it.
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
                write!(f, "{} ({how})", self.name())
            }
            _ => f.write_str(self.name()),
        }
    }
}

/// One rank's part in one operation: the tensors that it passes and those that it expects, in rank order.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation.
    pub op: Op,
    /// The tensors that this rank passes: one for each receiver if receivers get different tensors, otherwise one or none.
    pub gives: Vec<Tensor>,
    /// One spec for each tensor that this rank expects. Any other shape or dtype is an error on both sides.
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

impl Call {
    /// Creates a call that sends this tensor to rank `dst`.
    pub fn send(tensor: &Tensor, dst: usize) -> Self {
        Self {
            op: Op::Send { dst },
            gives: vec![tensor.clone()],
            expects: vec![],
        }
    }

    /// Creates a call that receives the next tensor from rank `src`.
    pub fn recv(expected: Spec, src: usize) -> Self {
        Self {
            op: Op::Recv { src },
            gives: vec![],
            expects: vec![expected],
        }
    }

    /// Checks that rank `rank` of `world_size` can make this call: its peer is a rank of the group, and the numbers of passed and
    /// expected tensors are those of the operation.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub(crate) fn check(&self, rank: usize, world_size: usize) -> Result<()> {
        let argument = |expected: String, got: String| Error::Argument {
            op: self.op.name(),
            rank,
            world_size,
            expected,
            got,
        };
        let (all, one) = (world_size, 1);
        let (peer, gives, expects) = match self.op {
            Op::Send { dst } => (Some(dst), one, 0),
            Op::Recv { src } => (Some(src), 0, one),
            Op::Broadcast { root } => (Some(root), usize::from(rank == root), one),
            Op::Scatter { root } if rank == root => (Some(root), all, one),
            Op::Scatter { root } => (Some(root), 0, one),
            Op::Gather { root } if rank == root => (Some(root), one, all),
            Op::Gather { root } => (Some(root), one, 0),
            Op::AllGather => (None, one, all),
            Op::AllReduce(_) => (None, one, one),
            Op::ReduceScatter(_) => (None, all, one),
            Op::AllToAll => (None, all, all),
            Op::Barrier => (None, 0, 0),
        };
        if let Some(peer) = peer.filter(|peer| *peer >= world_size) {
            return Err(argument(
                format!("a rank below {world_size}"),
                peer.to_string(),
            ));
        }
        if (self.gives.len(), self.expects.len()) != (gives, expects) {
            let counts = |gives, expects| format!("{gives} tensors to give and {expects} to get");
            return Err(argument(
                format!("{} on this rank", counts(gives, expects)),
                counts(self.gives.len(), self.expects.len()),
            ));
        }
        let reduced = match self.op {
            Op::AllReduce(_) => self.gives.first(),
            Op::ReduceScatter(_) => self.gives.get(rank),
            _ => None,
        };
        let expected = self.expects.first();
        match reduced.map(Spec::of) {
            Some(spec) if expected != Some(&spec) => Err(argument(
                format!("a result of {spec}, as what is reduced"),
                expected.map_or_else(|| "none".to_owned(), Spec::to_string),
            )),
            _ => Ok(()),
        }
    }

    /// Returns the bytes that this rank sends to other ranks. Tensors that stay on the rank do not count. A tensor that several
    /// ranks receive counts once for each.
    pub(crate) fn sent_bytes(&self, rank: usize, world_size: usize) -> usize {
        let bytes = |t: &Tensor| Spec::of(t).bytes();
        let others = world_size - 1;
        match self.op {
            Op::Send { dst } if dst == rank => 0,
            Op::Recv { .. } | Op::Barrier => 0,
            Op::Gather { root } if root == rank => 0,
            Op::Send { .. } | Op::Gather { .. } => self.gives.iter().map(bytes).sum(),
            Op::Broadcast { .. } | Op::AllGather | Op::AllReduce(_) => {
                self.gives.iter().map(bytes).sum::<usize>() * others
            }
            Op::Scatter { .. } | Op::ReduceScatter(_) | Op::AllToAll => {
                let to_others = self.gives.iter().enumerate().filter(|(i, _)| *i != rank);
                to_others.map(|(_, t)| bytes(t)).sum()
            }
        }
    }
}
