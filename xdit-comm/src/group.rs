use crate::{Axis, Backend, Call, Op, Pending, ReduceOp, Result, Spec, Stats, stats::Counters};
use std::sync::Arc;
use xdit_kernels::Tensor;

/// Ranks that call the same collectives in the same order. Cheap to clone; clones are the same rank of the same group.
///
/// Tensors travel on its data plane: by the calls below, or several calls at once as a batch ([`start`](Self::start)). Bytes of the
/// host travel on its control plane ([`control`](Self::control)).
///
/// Blocking calls are their started forms, awaited. Shapes that will come back are given by the caller, since every rank
/// knows them from the plan: nothing is negotiated at run time.
///
/// # Examples
/// ```
/// use xdit_comm::{ReduceOp, threads};
/// use xdit_kernels::{Device, Tensor};
/// let sums = threads::run(3, |group| {
///     let mine = Tensor::from_slice(&[group.rank() as f32], [1], &Device::cpu())?;
///     Ok(group.all_reduce(&mine, ReduceOp::Sum)?.to_vec_blocking::<f32>()?)
/// })?;
/// assert_eq!(sums, [[3.0], [3.0], [3.0]]);
/// # Ok::<(), xdit_comm::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Group {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) counters: Counters,
    pub(crate) axis: Option<Axis>,
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

    /// Its backend, for a transport around it: what is started there is not counted.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Whether a receive may be started before the sends that it depends on, in a batch of its own. Where it may not, they must be
    /// one batch ([`Backend`]'s contract).
    pub fn receives_ahead(&self) -> bool {
        self.backend.receives_ahead()
    }

    /// What this rank has done on this group and the groups split from it: calls, bytes sent, time waited, per operation
    /// and axis.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Adds to what [`stats`](Self::stats) says was copied around `op`: who packs messages counts what it copies.
    pub fn count_copied(&self, op: Op, bytes: usize) {
        self.counters.copied(op.name(), self.axis, bytes);
    }

    /// Tells the group that this rank has finished an operation of its own: a rank that computes for long between two calls
    /// says so after each kernel, or it is lost when the deadline has passed. Starting and finishing a call counts too. Never
    /// waits; not collective.
    ///
    /// # Errors
    /// [`PeerLost`](crate::Error::PeerLost), [`Disagree`](crate::Error::Disagree) or [`Deadlock`](crate::Error::Deadlock) if a failure is known: what is being computed here is of no use
    /// any more.
    pub fn progress(&self) -> Result<()> {
        self.backend.progress()
    }

    /// The same group, its calls counted under this axis.
    pub(crate) fn named(mut self, axis: Axis) -> Self {
        self.axis = Some(axis);
        self
    }

    /// Starts calls that progress together, none waiting for another to end: a receive and the sends that it depends on, say. The
    /// tensors that arrive are those that the calls expect, call by call. An empty batch is done.
    ///
    /// # Errors
    /// [`Argument`](crate::Error::Argument) if a call names no rank of the group, or gives or expects another number of tensors than its operation
    /// moves; or if a failure is known.
    ///
    /// # Examples
    /// Two ranks swap two tensors, in one batch:
    /// ```
    /// use xdit_comm::{Call, Spec, threads};
    /// use xdit_kernels::{Device, Tensor};
    /// let got = threads::run(2, |group| {
    ///     let (me, peer) = (group.rank() as f32, 1 - group.rank());
    ///     let (a, b) = (Tensor::from_slice(&[me], [1], &Device::cpu())?, Tensor::from_slice(&[me, me], [2], &Device::cpu())?);
    ///     let batch = vec![
    ///         Call::send(&a, peer),
    ///         Call::send(&b, peer),
    ///         Call::recv(Spec::of(&a), peer),
    ///         Call::recv(Spec::of(&b), peer),
    ///     ];
    ///     let arrived = group.start(batch)?.wait()?;
    ///     Ok((arrived[0].to_vec_blocking::<f32>()?, arrived[1].to_vec_blocking::<f32>()?))
    /// })?;
    /// assert_eq!(got[0], (vec![1.0], vec![1.0, 1.0]));
    /// # Ok::<(), xdit_comm::Error>(())
    /// ```
    pub fn start(&self, batch: Vec<Call>) -> Result<Pending> {
        let (rank, world_size) = (self.rank(), self.world_size());
        for call in &batch {
            call.check(rank, world_size)?;
        }
        let mut bytes = 0;
        for call in &batch {
            let sent = call.sent_bytes(rank, world_size);
            self.counters.started(call.op.name(), self.axis, sent);
            bytes += sent;
        }
        // What is waited for is what arrives: of a batch, its first receive.
        let awaited = batch.iter().find(|call| !call.expects.is_empty());
        let op = awaited.or(batch.first()).map_or("batch", |c| c.op.name());
        let ticket = self.backend.start(batch)?;
        Ok(Pending::new(
            ticket,
            self.counters.clone(),
            self.axis,
            op,
            bytes,
        ))
    }

    fn start_one(&self, call: Call) -> Result<Pending> {
        self.start(vec![call])
    }

    /// Sends to `dst`; the tensor is shared, not copied, where the backend can.
    ///
    /// # Errors
    /// If there is no such rank or a failure is known.
    pub fn start_send(&self, tensor: &Tensor, dst: usize) -> Result<Pending> {
        self.start_one(Call::send(tensor, dst))
    }

    /// Receives from `src` what it sends next.
    ///
    /// # Errors
    /// If there is no such rank or a failure is known.
    pub fn start_recv(&self, expected: Spec, src: usize) -> Result<Pending> {
        self.start_one(Call::recv(expected, src))
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
        self.start(vec![Call::send(tensor, dst), Call::recv(expected, src)])
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
        self.start_one(Call {
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
        self.start_one(Call {
            op: Op::Scatter { root },
            gives: tensors.unwrap_or_default(),
            expects: vec![expected],
        })
    }

    /// Starts [`gather`](Self::gather).
    ///
    /// # Errors
    /// As it.
    pub fn start_gather(&self, tensor: &Tensor, expected: &[Spec], root: usize) -> Result<Pending> {
        let expects = match self.rank() == root {
            true => expected.to_vec(),
            false => vec![],
        };
        self.start_one(Call {
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
        let expects = tensors.get(self.rank()).map(Spec::of).into_iter().collect();
        self.start_one(Call {
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
        self.start_one(Call {
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
        self.start_one(Call {
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
        self.start_one(Call {
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
        self.start_one(Call {
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
    /// [`PeerLost`](crate::Error::PeerLost), [`Disagree`](crate::Error::Disagree).
    pub fn split(&self, color: usize, key: usize) -> Result<Self> {
        Ok(Self {
            backend: self.backend.split(color, key)?.into(),
            counters: self.counters.clone(),
            axis: self.axis,
        })
    }
}
