//! One rank's end of a group.

use super::{
    engine::{NcclEngine, NcclOwner},
    ffi::{Launch, UniqueId},
};
use crate::processes::{
    parts::{incoming, outgoing, own, result},
    transport::{Transfer, Transport},
};
use crate::{Call, Error, Op, Result, Spec};
use std::{collections::VecDeque, sync::Arc};
use xdit_kernels::{DType, Device, Event, Tensor, TensorMut};

/// A transport whose tensors NCCL moves.
#[derive(Debug)]
pub(super) struct NcclTransport {
    owner: Arc<NcclOwner>,
    comm: usize,
    /// Ranks of the world, in group order.
    members: Arc<[usize]>,
    rank: usize,
    /// The rank computes there.
    device: Device,
    /// What ranks send each other at a barrier.
    token: Tensor,
}

impl Drop for NcclTransport {
    fn drop(&mut self) {
        self.engine().release(self.comm);
    }
}

/// What a call gets from one rank.
#[derive(Debug)]
enum NcclPart {
    /// It was there.
    Own(Tensor),
    /// The next tensor that the batch brings, of collectives or of messages.
    Arrives { collective: bool },
}

/// A call, and the parts of its result.
#[derive(Debug)]
struct NcclCall {
    call: Call,
    parts: Vec<NcclPart>,
}

impl NcclTransport {
    pub(super) fn new(
        owner: Arc<NcclOwner>,
        comm: usize,
        members: Arc<[usize]>,
        rank: usize,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            owner,
            comm,
            members,
            rank,
            device: device.clone(),
            token: Tensor::zeros([1], DType::U8, device)?,
        })
    }

    fn engine(&self) -> &Arc<NcclEngine> {
        self.owner.engine()
    }

    fn error(&self, doing: &str, reason: &str) -> Error {
        error(doing, self.members[self.rank], reason)
    }

    /// Adds what travels for a call. Between two ranks, order decides what belongs together. Tensors without bytes do not travel.
    fn add(&self, call: Call, launch: &mut Launch) -> Result<NcclCall> {
        let (me, n) = (self.rank, self.members.len());
        let collective = call.op.is_collective();
        let mut parts = Vec::new();
        if call.op == Op::Barrier {
            let spec = Spec::of(&self.token);
            for other in (0..n).filter(|other| *other != me) {
                launch.gives.push((other, self.token.clone()));
                launch.expects.push((other, spec));
                parts.push(NcclPart::Arrives { collective });
            }
        }
        let given = outgoing(&call, me, n).into_iter();
        let given = given.filter(|(_, tensor)| tensor.byte_len() > 0);
        launch
            .gives
            .extend(given.map(|(to, tensor)| (to, tensor.clone())));
        for (from, spec) in incoming(&call, me, n) {
            parts.push(match own(&call, me) {
                Some(own) if from == me => NcclPart::Own(own.clone()),
                _ if spec.bytes() == 0 => {
                    NcclPart::Own(Tensor::zeros(spec.shape, spec.dtype, &self.device)?)
                }
                _ => {
                    launch.expects.push((from, spec));
                    NcclPart::Arrives { collective }
                }
            });
        }
        Ok(NcclCall { call, parts })
    }

    /// Makes the communicator of a subgroup where the library cannot split: its first rank sends the others an id.
    fn join(&self, members: &[usize], rank: usize) -> Result<usize> {
        let failed = |reason: String| self.error("split", &reason);
        let mut launch = Launch::default();
        let mut id = None;
        if rank == 0 {
            let made = self.engine().functions.unique_id().map_err(failed)?;
            let sent = Tensor::from_slice(&made.0, [UniqueId::LEN], &self.device)?;
            let others = members.iter().skip(1);
            launch.gives.extend(others.map(|to| (*to, sent.clone())));
            id = Some(made);
        } else {
            let spec = Spec::new([UniqueId::LEN], DType::U8);
            launch.expects.push((members[0], spec));
        }
        let number = self.engine().begin(self.comm, self.device.record(), launch);
        let launched = self.engine().await_launch(number.map_err(failed)?);
        for tensor in launched.map_err(failed)?.tensors {
            let bytes = tensor.freeze().to_vec_blocking::<u8>()?;
            id = bytes.try_into().ok().map(UniqueId);
        }
        let id = id.ok_or_else(|| failed("no id has come".to_owned()))?;
        self.engine()
            .join((rank, members.len()), id)
            .map_err(failed)
    }
}

fn error(doing: &str, rank: usize, reason: &str) -> Error {
    Error::other(format!("{doing} (rank {rank}): NCCL: {reason}"))
}

impl Transport for NcclTransport {
    /// Batches run one after another.
    fn receives_ahead(&self) -> bool {
        false
    }

    fn device(&self) -> Option<&Device> {
        Some(&self.device)
    }

    fn start(&self, mut batch: Vec<Call>) -> Result<Box<dyn Transfer>> {
        for tensor in batch.iter_mut().flat_map(|call| &mut call.gives) {
            *tensor = tensor.to_device(&self.device)?;
        }
        // What the rank's queue was given so far writes what is sent.
        let ready = self.device.record();
        let (mut collectives, mut messages) = (Launch::default(), Launch::default());
        let mut calls = Vec::with_capacity(batch.len());
        for call in batch {
            let launch = match call.op.is_collective() {
                true => &mut collectives,
                false => &mut messages,
            };
            calls.push(self.add(call, launch)?);
        }
        let in_collectives = collectives.expects.len();
        let mut launch = collectives;
        launch.gives.append(&mut messages.gives);
        launch.expects.append(&mut messages.expects);
        let doing = calls
            .first()
            .map_or("a batch", |first| first.call.op.name());
        let number = self.engine().begin(self.comm, ready, launch);
        Ok(Box::new(NcclTransfer {
            number: Some(number.map_err(|reason| self.error(doing, &reason))?),
            engine: self.engine().clone(),
            rank: self.members[self.rank],
            device: self.device.clone(),
            calls,
            in_collectives,
        }))
    }

    fn subgroup(&self, _color: usize, members: &[usize]) -> Result<Box<dyn Transport>> {
        let rank = members.iter().position(|member| *member == self.rank);
        let (Some(rank), Some(first)) = (rank, members.iter().min()) else {
            return Err(self.error("split", "a subgroup without this rank"));
        };
        let comm = match self.engine().functions.can_split() {
            // The first member tells subgroups apart as well as the color, and is a number that NCCL takes.
            true => (self.engine().split(self.comm, *first, rank))
                .map_err(|reason| self.error("split", &reason))?,
            false => self.join(members, rank)?,
        };
        let members = members.iter().map(|member| self.members[*member]).collect();
        let owner = self.owner.clone();
        Ok(Box::new(Self::new(
            owner,
            comm,
            members,
            rank,
            &self.device,
        )?))
    }

    fn abort(&self) {
        self.engine().abort();
    }
}

/// A batch under way.
#[derive(Debug)]
struct NcclTransfer {
    /// None at the end.
    number: Option<u64>,
    engine: Arc<NcclEngine>,
    /// In the world.
    rank: usize,
    device: Device,
    calls: Vec<NcclCall>,
    /// How many of the tensors that arrive are of collectives. They come first.
    in_collectives: usize,
}

impl Drop for NcclTransfer {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.engine.forget(number);
        }
    }
}

impl NcclTransfer {
    fn is_reduced(call: &Call) -> bool {
        matches!(call.op, Op::AllReduce(_) | Op::ReduceScatter(_))
    }

    /// The result of a call. The host computes reductions.
    fn result(&self, call: &Call, parts: Vec<Tensor>, done: &Event) -> Result<Vec<Tensor>> {
        if !Self::is_reduced(call) {
            let parts = parts.iter().map(|part| part.to_device(&self.device));
            return Ok(parts.collect::<xdit_kernels::Result<_>>()?);
        }
        let reader = self.engine.reader.get_or_init(|| self.device.fork());
        reader.wait(done);
        let parts = parts.iter().map(|part| part.to_device(reader));
        let parts = parts.collect::<xdit_kernels::Result<_>>()?;
        let reduced = result(call, parts)?;
        let reduced = reduced.iter().map(|tensor| tensor.to_device(&self.device));
        Ok(reduced.collect::<xdit_kernels::Result<_>>()?)
    }
}

impl Transfer for NcclTransfer {
    fn poll(&mut self) -> Result<Option<Vec<Tensor>>> {
        let Some(number) = self.number else {
            return Ok(None);
        };
        // A barrier returns when all ranks have come, and the host reads what it reduces.
        let awaits = |call: &Call| call.op == Op::Barrier || Self::is_reduced(call);
        let awaits = self.calls.iter().any(|moving| awaits(&moving.call));
        // A GPU that has failed says so where its result is read.
        let wait = |done: &Event| awaits && !done.has_happened().unwrap_or(true);
        let polled = self.engine.poll(number, wait).map_err(|reason| {
            let awaited = self
                .calls
                .iter()
                .find(|moving| !moving.call.expects.is_empty());
            let doing = awaited.or(self.calls.first());
            let doing = doing.map_or_else(|| "a batch".to_owned(), |m| m.call.to_string());
            error(&doing, self.rank, &reason)
        });
        let Some(arrived) = polled? else {
            return Ok(None);
        };
        self.number = None;
        self.device.wait(&arrived.done);
        let mut collectives: VecDeque<Tensor> =
            arrived.tensors.into_iter().map(TensorMut::freeze).collect();
        let mut messages = collectives.split_off(self.in_collectives);
        let mut tensors = Vec::new();
        for NcclCall { call, parts } in std::mem::take(&mut self.calls) {
            let parts = parts.into_iter().filter_map(|part| match part {
                NcclPart::Own(tensor) => Some(tensor),
                NcclPart::Arrives { collective: true } => collectives.pop_front(),
                NcclPart::Arrives { collective: false } => messages.pop_front(),
            });
            let parts = parts.collect();
            if call.op != Op::Barrier {
                tensors.extend(self.result(&call, parts, &arrived.done)?);
            }
        }
        Ok(Some(tensors))
    }
}
