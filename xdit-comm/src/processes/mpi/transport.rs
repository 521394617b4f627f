//! One rank's end of a group.

use super::{
    engine::{MpiEngine, MpiProgress},
    ffi::{Comm, MpiStep, Operation},
    options::MpiOptions,
};
use crate::processes::{
    parts::{incoming, outgoing, own, result},
    transport::{Transfer, Transport},
};
use crate::{Call, Error, Op, Result, Spec};
use std::sync::Arc;
use xdit_kernels::{Device, DeviceKind, Tensor, TensorMut};

/// The tags of messages and of parts of collectives, whose orders are independent.
const MESSAGE: u8 = 0;
const PART: u8 = 1;

/// A transport whose tensors MPI moves.
#[derive(Debug)]
pub(super) struct MpiTransport {
    engine: Arc<MpiEngine>,
    comm: Arc<Comm>,
    /// Ranks of the world, in group order.
    members: Arc<[usize]>,
    rank: usize,
    /// That of the tensors that arrive.
    device: Device,
    options: MpiOptions,
}

impl MpiTransport {
    /// Returns rank `rank` of the whole world, which has the communicator `comm`.
    pub(super) fn of_world(
        engine: Arc<MpiEngine>,
        comm: Arc<Comm>,
        (rank, world_size): (usize, usize),
        device: &Device,
        options: MpiOptions,
    ) -> Self {
        Self {
            engine,
            comm,
            members: (0..world_size).collect(),
            rank,
            device: device.clone(),
            options,
        }
    }

    fn error(&self, doing: &str, reason: &str) -> Error {
        let rank = self.members[self.rank];
        Error::other(format!("{doing} (rank {rank}): MPI: {reason}"))
    }

    fn memory(&self, spec: &Spec) -> Result<TensorMut> {
        // MPI may write less than all of it, as when ranks disagree: then it holds zeros.
        Ok(TensorMut::zeros(spec.shape, spec.dtype, &self.device)?)
    }

    /// Whether a count of MPI cannot tell the bytes of a broadcast. MPICH 4.0 fails to broadcast a datatype of more than 2 GiB, but
    /// sends it.
    fn is_long(&self, call: &Call) -> bool {
        let largest = self.options.largest_count;
        call.expects.iter().any(|spec| spec.bytes() > largest)
    }

    /// Returns what MPI does for a call.
    fn steps(&self, call: &Call) -> Result<Vec<MpiStep>> {
        let (me, n) = (self.rank, self.members.len());
        let gives = outgoing(call, me, n)
            .into_iter()
            .map(|(to, t)| (to, t.clone()));
        let awaited = incoming(call, me, n).into_iter();
        let awaited = awaited.filter(|(from, _)| *from != me || !call.op.is_collective());
        let into = awaited.map(|(from, spec)| Ok((from, self.memory(&spec)?)));
        let mut into = into.collect::<Result<Vec<_>>>()?;
        Ok(match call.op {
            Op::Broadcast { root } if !self.is_long(call) => vec![MpiStep::Broadcast {
                root,
                gives: call.gives.first().filter(|_| root == me).cloned(),
                into: into.pop().map(|(_, tensor)| tensor),
            }],
            Op::Send { .. }
            | Op::Recv { .. }
            | Op::Broadcast { .. }
            | Op::Scatter { .. }
            | Op::Gather { .. } => {
                let tag = if call.op.is_collective() {
                    PART
                } else {
                    MESSAGE
                };
                let sends = gives.map(|(to, tensor)| MpiStep::Send { to, tag, tensor });
                let receives =
                    into.into_iter()
                        .map(|(from, into)| MpiStep::Receive { from, tag, into });
                sends.chain(receives).collect()
            }
            Op::AllGather | Op::AllReduce(_) | Op::ReduceScatter(_) | Op::AllToAll => {
                let gives = gives.collect();
                vec![MpiStep::Exchange { gives, into }]
            }
            Op::Barrier => vec![MpiStep::Barrier],
        })
    }
}

impl Transport for MpiTransport {
    fn receives_ahead(&self) -> bool {
        true
    }

    /// Only MPI knows which messages are so small that it keeps them.
    fn sends_end_alone(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&Device> {
        Some(&self.device)
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Transfer>> {
        let mut steps = Vec::with_capacity(batch.len());
        let mut moving = Vec::with_capacity(batch.len());
        for call in batch {
            let foreign = |tensor: &&Tensor| !matches!(tensor.device().kind(), DeviceKind::Cpu(_));
            if let Some(foreign) = call.gives.iter().find(foreign) {
                return Err(Error::Argument {
                    op: call.op.name(),
                    rank: self.rank,
                    world_size: self.members.len(),
                    expected: "tensors of the processor, which MPI moves".to_owned(),
                    got: format!("one of {}", foreign.device()),
                });
            }
            let own_steps = self.steps(&call)?;
            moving.push(CallUnderWay {
                call,
                steps: own_steps.len(),
            });
            steps.extend(own_steps);
        }
        let doing = moving.first().map_or("a batch", |m| m.call.op.name());
        let number = self.engine.begin(&self.comm, steps);
        Ok(Box::new(MpiTransfer {
            number: Some(number.map_err(|reason| self.error(doing, &reason))?),
            engine: self.engine.clone(),
            members: self.members.clone(),
            rank: self.rank,
            moving,
        }))
    }

    fn subgroup(&self, _color: usize, members: &[usize]) -> Result<Box<dyn Transport>> {
        let rank = members.iter().position(|member| *member == self.rank);
        let (Some(rank), Some(first)) = (rank, members.iter().min()) else {
            return Err(self.error("split", "a subgroup without this rank"));
        };
        // The first member tells subgroups apart as well as the color, and is a number that MPI takes.
        let made = (self.engine).split(
            Some(self.comm.clone()),
            (*first, rank),
            self.options.deadline,
            // A failure of the group aborts this transport.
            || true,
        );
        let comm = made.map_err(|reason| self.error("split", &reason))?;
        if comm.place() != (rank, members.len()) {
            return Err(self.error("split", "the ranks name different members"));
        }
        Ok(Box::new(Self {
            engine: self.engine.clone(),
            comm: Arc::new(comm),
            members: members.iter().map(|member| self.members[*member]).collect(),
            rank,
            device: self.device.clone(),
            options: self.options,
        }))
    }

    fn abort(&self) {
        self.engine.abort();
    }
}

/// A call, and the number of its steps.
#[derive(Debug)]
struct CallUnderWay {
    call: Call,
    steps: usize,
}

/// A batch under way.
#[derive(Debug)]
struct MpiTransfer {
    /// None at the end.
    number: Option<u64>,
    engine: Arc<MpiEngine>,
    members: Arc<[usize]>,
    rank: usize,
    moving: Vec<CallUnderWay>,
}

impl Drop for MpiTransfer {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.engine.forget(number);
        }
    }
}

impl MpiTransfer {
    fn error(&self, reason: &str) -> Error {
        let awaited = self
            .moving
            .iter()
            .find(|moving| !moving.call.expects.is_empty());
        let doing = awaited.or(self.moving.first());
        let doing = doing.map_or_else(|| "a batch".to_owned(), |moving| moving.call.to_string());
        let rank = self.members[self.rank];
        Error::other(format!("{doing} (rank {rank}): MPI: {reason}"))
    }
}

impl Transfer for MpiTransfer {
    fn poll(&mut self) -> Result<Option<Vec<Tensor>>> {
        let number = self
            .number
            .ok_or_else(|| self.error("it has ended before"))?;
        let stage = self.engine.poll(number);
        let (operations, outcome) = match stage.map_err(|reason| self.error(&reason))? {
            MpiProgress::UnderWay => return Ok(None),
            MpiProgress::Ended(operations, outcome) => (operations, outcome),
        };
        self.number = None;
        outcome.map_err(|reason| self.error(&reason))?;
        let (me, n) = (self.rank, self.members.len());
        let mut operations = operations.into_iter();
        let mut tensors = Vec::new();
        for CallUnderWay { call, steps } in &self.moving {
            let steps = operations.by_ref().take(*steps);
            let arrived: Vec<Tensor> = steps.flat_map(Operation::into_tensors).collect();
            let mut arrived = arrived.into_iter();
            let own = own(call, me);
            let parts = incoming(call, me, n).into_iter();
            let parts = parts.filter_map(|(from, _)| match own {
                Some(own) if from == me => Some(own.clone()),
                _ => arrived.next(),
            });
            tensors.extend(result(call, parts.collect())?);
        }
        Ok(Some(tensors))
    }
}
