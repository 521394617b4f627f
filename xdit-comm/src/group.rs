use crate::{
    Axis, Backend, Call, Error, Op, ReduceOp, Result, Spec, Stats, Ticket, stats::Counters,
};
use std::{sync::Arc, time::Instant};
use xdit_kernels::Tensor;

/// Ranks that call the same collectives in the same order. Cheap to clone; clones are the same rank of the same group.
///
/// Blocking calls are their started forms, awaited. Shapes that will come back are given by the caller, since every rank
/// knows them from the plan: nothing is negotiated at run time.
///
/// # Examples
/// ```
/// use xdit_comm::{ReduceOp, threads};
/// use xdit_kernels::Tensor;
/// let sums = threads::run(3, |group| {
///     let mine = Tensor::from_slice(&[group.rank() as f32], [1])?;
///     Ok(group.all_reduce(&mine, ReduceOp::Sum)?.to_f32_vec())
/// })?;
/// assert_eq!(sums, [[3.0], [3.0], [3.0]]);
/// # Ok::<(), xdit_comm::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Group {
    backend: Arc<dyn Backend>,
    counters: Counters,
    axis: Option<Axis>,
}

/// An operation under way. It owns its tensors; dropping it without waiting loses what would have arrived.
#[must_use = "a started operation is finished by wait()"]
#[derive(Debug)]
pub struct Pending {
    ticket: Box<dyn Ticket>,
    counters: Counters,
    op: Op,
    axis: Option<Axis>,
    bytes: usize,
}

impl Pending {
    /// The tensors that arrive, in rank order.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Disagree`], [`Error::Deadlock`].
    pub fn wait(self) -> Result<Vec<Tensor>> {
        let axis = self.axis.map_or("world", Axis::name);
        let bytes = self.bytes;
        let _span = tracing::trace_span!("collective", op = self.op.name(), axis, bytes).entered();
        let start = Instant::now();
        let out = self.ticket.wait();
        self.counters.waited(self.op, self.axis, start.elapsed());
        out
    }

    /// The one tensor that arrives.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// If the operation does not bring exactly one: a bug in the backend.
    pub fn wait_one(self) -> Result<Tensor> {
        let mut all = self.wait()?;
        assert_eq!(
            all.len(),
            1,
            "the backend brings as many tensors as were expected"
        );
        Ok(all.remove(0))
    }
}

impl Group {
    /// The group whose ranks a backend connects.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend: backend.into(),
            counters: Counters::default(),
            axis: None,
        }
    }

    /// My index in the group.
    pub fn rank(&self) -> usize {
        self.backend.rank()
    }

    /// How many ranks it has.
    pub fn world_size(&self) -> usize {
        self.backend.world_size()
    }

    /// What this rank has done on this group and the groups split from it: calls, bytes sent, time waited, per operation
    /// and axis.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Adds to what [`stats`](Self::stats) says was copied around `op`: who packs messages counts what it copies.
    pub fn count_copied(&self, op: Op, bytes: usize) {
        self.counters.copied(op, self.axis, bytes);
    }

    /// Tells the group that this rank has finished an operation of its own: a rank that computes for long between two calls
    /// says so after each kernel, or it is lost when the deadline has passed. Starting and finishing a call counts too. Never
    /// waits; not collective.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Disagree`] or [`Error::Deadlock`] if a failure is known: what is being computed here is of no use
    /// any more.
    pub fn progress(&self) -> Result<()> {
        self.backend.progress()
    }

    /// The same group, its calls counted under this axis.
    pub(crate) fn named(mut self, axis: Axis) -> Self {
        self.axis = Some(axis);
        self
    }

    pub(crate) fn argument(
        &self,
        op: &'static str,
        expected: impl ToString,
        got: impl ToString,
    ) -> Error {
        Error::Argument {
            op,
            rank: self.rank(),
            world_size: self.world_size(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    pub(crate) fn peer(&self, op: &'static str, rank: usize) -> Result<()> {
        if rank < self.world_size() {
            return Ok(());
        }
        Err(self.argument(op, format!("a rank below {}", self.world_size()), rank))
    }

    pub(crate) fn per_rank<T>(&self, op: &'static str, what: &str, items: &[T]) -> Result<()> {
        if items.len() == self.world_size() {
            return Ok(());
        }
        Err(self.argument(
            op,
            format!("{what} for each of {} ranks", self.world_size()),
            items.len(),
        ))
    }

    pub(crate) fn start(&self, call: Call) -> Result<Pending> {
        let op = call.op;
        let bytes = sent_bytes(&call, self.rank(), self.world_size());
        self.counters.started(op, self.axis, bytes);
        let ticket = self.backend.start(call)?;
        Ok(Pending {
            ticket,
            counters: self.counters.clone(),
            op,
            axis: self.axis,
            bytes,
        })
    }

    /// Sends to `dst`; the tensor is shared, not copied, where the backend can.
    ///
    /// # Errors
    /// If there is no such rank or a failure is known.
    pub fn start_send(&self, tensor: &Tensor, dst: usize) -> Result<Pending> {
        self.peer("send", dst)?;
        self.start(Call {
            op: Op::Send { dst },
            gives: vec![tensor.clone()],
            expects: vec![],
        })
    }

    /// Receives from `src` what it sends next.
    ///
    /// # Errors
    /// If there is no such rank or a failure is known.
    pub fn start_recv(&self, expected: Spec, src: usize) -> Result<Pending> {
        self.peer("recv", src)?;
        self.start(Call {
            op: Op::Recv { src },
            gives: vec![],
            expects: vec![expected],
        })
    }

    /// Sends to `dst` and receives from `src` at once; wait on the result for what arrives.
    ///
    /// # Errors
    /// As its two halves.
    pub fn start_send_recv(
        &self,
        tensor: &Tensor,
        dst: usize,
        expected: Spec,
        src: usize,
    ) -> Result<Pending> {
        self.peer("send_recv", dst)?;
        self.peer("send_recv", src)?;
        // A send ends when the receiver has taken it or the message is owned by the transport; nobody waits for it.
        drop(self.start_send(tensor, dst)?);
        self.start_recv(expected, src)
    }

    /// Starts [`broadcast`](Self::broadcast).
    ///
    /// # Errors
    /// As it.
    pub fn start_broadcast(
        &self,
        tensor: Option<&Tensor>,
        expected: Spec,
        root: usize,
    ) -> Result<Pending> {
        self.peer("broadcast", root)?;
        if tensor.is_some() != (self.rank() == root) {
            return Err(self.argument(
                "broadcast",
                "a tensor on the root and on no other rank",
                format!(
                    "{} tensor on rank {}",
                    if tensor.is_some() { "a" } else { "no" },
                    self.rank()
                ),
            ));
        }
        self.start(Call {
            op: Op::Broadcast { root },
            gives: tensor.into_iter().cloned().collect(),
            expects: vec![expected],
        })
    }

    /// Starts [`scatter`](Self::scatter).
    ///
    /// # Errors
    /// As it.
    pub fn start_scatter(
        &self,
        tensors: Option<Vec<Tensor>>,
        expected: Spec,
        root: usize,
    ) -> Result<Pending> {
        self.peer("scatter", root)?;
        if tensors.is_some() != (self.rank() == root) {
            return Err(self.argument(
                "scatter",
                "tensors on the root and on no other rank",
                tensors.is_some(),
            ));
        }
        let gives = tensors.unwrap_or_default();
        if self.rank() == root {
            self.per_rank("scatter", "a tensor", &gives)?;
        }
        let op = Op::Scatter { root };
        let expects = vec![expected];
        self.start(Call { op, gives, expects })
    }

    /// Starts [`gather`](Self::gather).
    ///
    /// # Errors
    /// As it.
    pub fn start_gather(&self, tensor: &Tensor, expected: &[Spec], root: usize) -> Result<Pending> {
        self.peer("gather", root)?;
        self.per_rank("gather", "a spec", expected)?;
        let expects = if self.rank() == root {
            expected.to_vec()
        } else {
            vec![]
        };
        self.start(Call {
            op: Op::Gather { root },
            gives: vec![tensor.clone()],
            expects,
        })
    }

    /// Starts [`reduce_scatter`](Self::reduce_scatter).
    ///
    /// # Errors
    /// As it.
    pub fn start_reduce_scatter(&self, tensors: Vec<Tensor>, how: ReduceOp) -> Result<Pending> {
        self.per_rank("reduce_scatter", "a tensor", &tensors)?;
        let expects = vec![Spec::of(&tensors[self.rank()])];
        self.start(Call {
            op: Op::ReduceScatter(how),
            gives: tensors,
            expects,
        })
    }

    /// Starts [`barrier`](Self::barrier).
    ///
    /// # Errors
    /// As it.
    pub fn start_barrier(&self) -> Result<Pending> {
        self.start(Call {
            op: Op::Barrier,
            gives: vec![],
            expects: vec![],
        })
    }

    /// Starts [`all_gather`](Self::all_gather).
    ///
    /// # Errors
    /// As it.
    pub fn start_all_gather(&self, tensor: &Tensor, expected: &[Spec]) -> Result<Pending> {
        self.per_rank("all_gather", "a spec", expected)?;
        self.start(Call {
            op: Op::AllGather,
            gives: vec![tensor.clone()],
            expects: expected.to_vec(),
        })
    }

    /// Starts [`all_to_all`](Self::all_to_all).
    ///
    /// # Errors
    /// As it.
    pub fn start_all_to_all(&self, tensors: Vec<Tensor>, expected: &[Spec]) -> Result<Pending> {
        self.per_rank("all_to_all", "a tensor", &tensors)?;
        self.per_rank("all_to_all", "a spec", expected)?;
        self.start(Call {
            op: Op::AllToAll,
            gives: tensors,
            expects: expected.to_vec(),
        })
    }

    /// Starts [`all_reduce`](Self::all_reduce).
    ///
    /// # Errors
    /// As it.
    pub fn start_all_reduce(&self, tensor: &Tensor, how: ReduceOp) -> Result<Pending> {
        self.start(Call {
            op: Op::AllReduce(how),
            gives: vec![tensor.clone()],
            expects: vec![Spec::of(tensor)],
        })
    }

    /// The group of the ranks that give the same color, ordered by key, then by rank here.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Disagree`].
    pub fn split(&self, color: usize, key: usize) -> Result<Self> {
        Ok(Self {
            backend: self.backend.split(color, key)?.into(),
            counters: self.counters.clone(),
            axis: self.axis,
        })
    }
}

/// Bytes that this rank hands to other ranks by a call: what stays on the rank is not counted, and a tensor that several
/// ranks receive is counted once for each.
fn sent_bytes(call: &Call, rank: usize, world_size: usize) -> usize {
    let bytes = |t: &Tensor| Spec::of(t).bytes();
    let others = world_size - 1;
    match call.op {
        Op::Send { dst } => {
            if dst == rank {
                0
            } else {
                call.gives.iter().map(bytes).sum()
            }
        }
        Op::Recv { .. } | Op::Barrier => 0,
        Op::Gather { root } if root == rank => 0,
        Op::Gather { .. } => call.gives.iter().map(bytes).sum(),
        Op::Broadcast { .. } | Op::AllGather | Op::AllReduce(_) => {
            call.gives.iter().map(bytes).sum::<usize>() * others
        }
        Op::Scatter { .. } | Op::ReduceScatter(_) | Op::AllToAll => {
            let to_others = call.gives.iter().enumerate().filter(|(i, _)| *i != rank);
            to_others.map(|(_, t)| bytes(t)).sum()
        }
    }
}
