use crate::{Axis, Backend, Call, Op, Pending, ReduceOp, Result, Spec, Stats, stats::Counters};
use std::sync::Arc;
use xdit_kernels::{Device, Tensor};

/// Ranks that call the same collectives in the same order. Cheap to clone; clones are the same rank of the same group.
///
/// Tensors travel on its data plane, by the calls below or as a batch of calls ([`start`](Self::start)). Host bytes travel on its
/// control plane ([`control`](Self::control)).
///
/// A blocking call starts an operation and waits for it. The caller passes the shapes of the results, because every rank knows them
/// from its plan. Ranks negotiate nothing at run time.
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
    /// Creates the group of the ranks that `backend` connects.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend: backend.into(),
            counters: Counters::default(),
            axis: None,
        }
    }

    /// Returns the index of this rank in the group.
    pub fn rank(&self) -> usize {
        self.backend.rank()
    }

    /// Returns the number of ranks.
    pub fn world_size(&self) -> usize {
        self.backend.world_size()
    }

    /// Returns the backend, for a transport that wraps it. Operations started there are not counted in the statistics.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Returns the device of this rank, if its backend knows it ([`Backend::device`]).
    pub fn device(&self) -> Option<&Device> {
        self.backend.device()
    }

    /// Returns whether a receive may be started before the sends that it depends on, in its own batch. If not, they must be one batch
    /// (see the contract of [`Backend`]).
    pub fn receives_ahead(&self) -> bool {
        self.backend.receives_ahead()
    }

    /// Returns the statistics of this rank for this group and the groups split from it: calls, bytes sent and time waited, per
    /// operation and axis.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Adds `bytes` to the copied bytes of `op` in [`stats`](Self::stats). Code that packs messages calls it.
    pub fn count_copied(&self, op: Op, bytes: usize) {
        self.counters.copied(op.name(), self.axis, bytes);
    }

    /// Reports that this rank has finished an operation of its own. A rank that computes for a long time between two calls must call
    /// this after each kernel, or it is lost after the deadline. The start and the end of a call count as progress too. This method
    /// never waits and is not collective.
    ///
    /// # Errors
    /// [`PeerLost`](crate::Error::PeerLost), [`Disagree`](crate::Error::Disagree) or [`Deadlock`](crate::Error::Deadlock) if a failure
    /// is known. The caller can then stop its computation.
    pub fn progress(&self) -> Result<()> {
        self.backend.progress()
    }

    /// Returns the same group, with its calls counted under this axis.
    pub(crate) fn named(mut self, axis: Axis) -> Self {
        self.axis = Some(axis);
        self
    }

    /// Starts calls that progress together, for example a receive and the sends that it depends on. No call waits for the end of
    /// another. The result contains the tensors that the calls expect, call by call. An empty batch is complete at once.
    ///
    /// # Errors
    /// [`Argument`](crate::Error::Argument) if a call names a rank outside the group, or the number of its tensors does not fit its
    /// operation; the error of a failure that is already known.
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

    /// Starts to send a tensor to `dst`. If the backend can, it shares the tensor instead of copying it.
    ///
    /// # Errors
    /// If there is no such rank or a failure is known.
    pub fn start_send(&self, tensor: &Tensor, dst: usize) -> Result<Pending> {
        self.start_one(Call::send(tensor, dst))
    }

    /// Starts to receive the next tensor from `src`.
    ///
    /// # Errors
    /// If there is no such rank or a failure is known.
    pub fn start_recv(&self, expected: Spec, src: usize) -> Result<Pending> {
        self.start_one(Call::recv(expected, src))
    }

    /// Starts to send to `dst` and to receive from `src`, as one batch. Waiting returns the received tensor.
    ///
    /// # Errors
    /// As [`start_send`](Self::start_send) and [`start_recv`](Self::start_recv).
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
    /// As the blocking call.
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
    /// As the blocking call.
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
    /// As the blocking call.
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
    /// As the blocking call.
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
    /// As the blocking call.
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
    /// As the blocking call.
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
    /// As the blocking call.
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
    /// As the blocking call.
    pub fn start_all_reduce(&self, tensor: &Tensor, how: ReduceOp) -> Result<Pending> {
        self.start_one(Call {
            op: Op::AllReduce(how),
            gives: vec![tensor.clone()],
            expects: vec![Spec::of(tensor)],
        })
    }

    /// Returns the group of the ranks that pass the same color, ordered by key, then by their rank in this group.
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
