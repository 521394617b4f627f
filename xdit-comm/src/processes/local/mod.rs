//! Tensors between the processes of one host, through Unix sockets.
//!
//! Each pair of ranks has one socket. A thread writes tensors from where they lie, and a thread reads them into new ones, so that
//! both run beside what the rank computes. Ranks on other hosts need another transport.

mod header;
mod inbox;
mod links;
mod meeting;

use super::parts;
use super::transport::{Transfer, Transport};
use crate::{Call, Error, Loss, Op, Result, Spec};
use inbox::SocketLane;
use links::SocketLinks;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xdit_kernels::{Device, Tensor};

pub use meeting::Meeting;

/// The tensors of one group, between processes of one host. [`Meeting`] makes that of the world.
#[derive(Debug)]
pub struct Local {
    links: Arc<SocketLinks>,
    /// The splits that lead from the world to this group.
    path: Arc<Vec<u64>>,
    /// Ranks of the world, in group order.
    members: Arc<[usize]>,
    /// This rank in the group.
    rank: usize,
    /// How often this group has been split.
    splits: AtomicU64,
}

impl Local {
    fn of_world(links: SocketLinks, world_size: usize) -> Self {
        Self {
            rank: links.rank,
            links: Arc::new(links),
            path: Arc::default(),
            members: (0..world_size).collect(),
            splits: AtomicU64::new(0),
        }
    }

    /// The lane of what `sender`, a rank of this group, sends.
    fn lane(&self, sender: usize, op: Op) -> SocketLane {
        SocketLane {
            path: self.path.clone(),
            sender: self.members[sender],
            collective: op.is_collective(),
        }
    }
}

/// What ranks send each other at a barrier.
fn nothing() -> Result<Tensor> {
    Ok(Tensor::from_slice::<u8>(&[], [0], &Device::cpu())?)
}

impl Transport for Local {
    /// Readers take messages as they come.
    fn receives_ahead(&self) -> bool {
        true
    }

    /// Writers send beside the rank.
    fn sends_end_alone(&self) -> bool {
        true
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Transfer>> {
        self.links.check()?;
        let (me, n) = (self.rank, self.members.len());
        for given in batch.iter().flat_map(|call| &call.gives) {
            if !matches!(given.device().kind(), xdit_kernels::DeviceKind::Cpu(_)) {
                return Err(Error::other(format!(
                    "rank {} sends a tensor of {}: sockets move those of the processor",
                    self.links.rank,
                    given.device()
                )));
            }
        }
        let mut moving = Vec::with_capacity(batch.len());
        for call in batch {
            let empty;
            let (sent, awaited) = match call.op {
                Op::Barrier => {
                    empty = nothing()?;
                    let others = || (0..n).filter(|other| *other != me);
                    let spec = Spec::of(&empty);
                    (
                        others().map(|other| (other, &empty)).collect(),
                        others().map(|other| (other, spec)).collect(),
                    )
                }
                _ => (parts::outgoing(&call, me, n), parts::incoming(&call, me, n)),
            };
            for (to, tensor) in sent {
                let lane = self.lane(me, call.op);
                let started = self.links.send(self.members[to], lane, tensor);
                started.map_err(|error| {
                    let rank = self.links.rank;
                    Error::other(format!("{call} (rank {rank}): {error}"))
                })?;
            }
            let own = parts::own(&call, me);
            let await_part = |(from, spec): (usize, Spec)| match own {
                Some(own) if from == me => LocalPart::There(own.clone()),
                _ => {
                    let lane = self.lane(from, call.op);
                    let number = self.links.inbox.expect(&lane);
                    LocalPart::Awaited { lane, number, spec }
                }
            };
            let parts = awaited.into_iter().map(await_part).collect();
            moving.push(Moving { call, parts });
        }
        Ok(Box::new(LocalBatch {
            links: self.links.clone(),
            receiver: me,
            moving,
        }))
    }

    fn subgroup(&self, color: usize, members: &[usize]) -> Result<Box<dyn Transport>> {
        let world_ranks: Arc<[usize]> =
            members.iter().map(|member| self.members[*member]).collect();
        let number = self.splits.fetch_add(1, Ordering::Relaxed);
        let mut path = self.path.to_vec();
        path.extend([number, color as u64]);
        let rank = members.iter().position(|member| *member == self.rank);
        Ok(Box::new(Self {
            links: self.links.clone(),
            path: Arc::new(path),
            members: world_ranks,
            rank: rank.unwrap_or_default(),
            splits: AtomicU64::new(0),
        }))
    }

    fn abort(&self) {
        self.links.abort();
    }
}

/// A batch under way.
#[derive(Debug)]
struct LocalBatch {
    links: Arc<SocketLinks>,
    /// This rank in the group.
    receiver: usize,
    moving: Vec<Moving>,
}

/// A call under way.
#[derive(Debug)]
struct Moving {
    call: Call,
    parts: Vec<LocalPart>,
}

/// What a call waits for.
#[derive(Debug)]
enum LocalPart {
    Awaited {
        lane: SocketLane,
        number: u64,
        spec: Spec,
    },
    There(Tensor),
}

impl LocalBatch {
    /// The error of a part that will not arrive.
    fn lost(&self, call: &Call, lane: &SocketLane, reason: String) -> Error {
        Error::PeerLost {
            op: call.to_string(),
            rank: self.links.rank,
            lost: lane.sender,
            host: None,
            reason: Loss::Failed(reason),
        }
    }

    /// The error of a tensor that is not the one that the call expects.
    fn unexpected(&self, call: &Call, lane: &SocketLane, got: Spec) -> Error {
        let name = match lane.collective {
            true => call.op.name().to_owned(),
            false => format!("send to {}", self.receiver),
        };
        Error::Disagree {
            rank: self.links.rank,
            other: lane.sender,
            mine: call.to_string(),
            theirs: format!("{name}, gives {:?}", [got]),
        }
    }
}

impl Transfer for LocalBatch {
    fn poll(&mut self) -> Result<Option<Vec<Tensor>>> {
        self.links.check()?;
        let mut moving = std::mem::take(&mut self.moving);
        let mut is_done = true;
        for Moving { call, parts } in &mut moving {
            for part in parts {
                let LocalPart::Awaited { lane, number, spec } = part else {
                    continue;
                };
                let taken = self.links.inbox.take(lane, *number);
                match taken.map_err(|reason| self.lost(call, lane, reason))? {
                    None => is_done = false,
                    Some(tensor) if Spec::of(&tensor) == *spec => *part = LocalPart::There(tensor),
                    Some(tensor) => {
                        let got = Spec::of(&tensor);
                        return Err(self.unexpected(call, lane, got));
                    }
                }
            }
        }
        if !is_done {
            self.moving = moving;
            return Ok(None);
        }
        let mut tensors = Vec::new();
        for Moving { call, parts } in moving {
            let parts = parts.into_iter().filter_map(|part| match part {
                LocalPart::There(tensor) if call.op != Op::Barrier => Some(tensor),
                _ => None,
            });
            tensors.extend(parts::result(&call, parts.collect())?);
        }
        Ok(Some(tensors))
    }

    fn rest(&mut self, limit: Duration) {
        let parts = self.moving.iter().flat_map(|moving| &moving.parts);
        let next = parts.into_iter().find_map(|part| match part {
            LocalPart::Awaited { lane, number, .. } => Some((lane, *number)),
            LocalPart::There(_) => None,
        });
        if let Some((lane, number)) = next {
            self.links.inbox.wait(lane, number, limit);
        }
    }
}

impl Drop for LocalBatch {
    /// What is not wanted any more is dropped when it arrives.
    fn drop(&mut self) {
        for part in self.moving.iter().flat_map(|moving| &moving.parts) {
            if let LocalPart::Awaited { lane, number, .. } = part {
                self.links.inbox.forget(lane, *number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
