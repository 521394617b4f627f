//! One rank's end of a group of processes: calls on the control plane, tensors on the transport.

use super::{
    plane::{ControlPlane, PlaneAnswer, TELL},
    transport::{Transfer, Transport},
    wire::{Awaited, Frame, MAX_PART, Posted},
};
use crate::{Backend, Call, Error, Loss, Op, Result, Ticket, threads::agree::CallSpecs};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use xdit_kernels::{Device, Tensor};

/// An exchange of the control plane, as errors name it.
const CONTROL: &str = "control exchange";
/// The most calls of a batch that rank 0 is told of when a rank waits for them. With their texts, shortened, they fit a frame.
const MAX_TARGETS: usize = 1024;

/// How many operations this rank has started in a group.
#[derive(Debug, Default)]
pub(super) struct GroupOrder {
    rounds: usize,
    exchanges: usize,
    sent: HashMap<usize, usize>,
    received: HashMap<usize, usize>,
}

/// The number that `counter` has had until now.
fn next(counter: &mut usize) -> usize {
    *counter += 1;
    *counter - 1
}

impl GroupOrder {
    fn target(&mut self, op: Op) -> Awaited {
        match op {
            Op::Send { dst } => Awaited::Receipt {
                dst,
                number: next(self.sent.entry(dst).or_default()),
            },
            Op::Recv { src } => Awaited::Message {
                src,
                number: next(self.received.entry(src).or_default()),
            },
            _ => Awaited::Round(next(&mut self.rounds)),
        }
    }
}

/// A rank's place in a group, on the control plane.
#[derive(Debug, Clone)]
pub(super) struct GroupSeat {
    pub(super) plane: Arc<ControlPlane>,
    group: usize,
    rank: usize,
    world_size: usize,
    order: Arc<Mutex<GroupOrder>>,
}

impl GroupSeat {
    /// The group of the whole world.
    pub(super) fn of_world(plane: Arc<ControlPlane>) -> Self {
        Self {
            group: 0,
            rank: plane.rank,
            world_size: plane.peers.len(),
            order: Arc::default(),
            plane,
        }
    }

    fn order(&self) -> MutexGuard<'_, GroupOrder> {
        // Numbers stay numbers whatever a panicking holder did.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an exchange; its number.
    fn start_exchange(&self, bytes: Vec<u8>) -> Result<usize> {
        self.plane.check(CONTROL)?;
        if bytes.len() > MAX_PART {
            return Err(Error::Argument {
                op: CONTROL,
                rank: self.rank,
                world_size: self.world_size,
                expected: format!("at most {MAX_PART} bytes"),
                got: bytes.len().to_string(),
            });
        }
        self.plane.progress();
        let mut order = self.order();
        let group = self.group;
        self.plane.send(&Frame::Exchange { group, bytes });
        Ok(next(&mut order.exchanges))
    }

    fn parts(&self, number: usize, deadline: Option<Duration>) -> Result<Vec<Vec<u8>>> {
        let what = Awaited::Exchange(number);
        match self.plane.answer(self.group, what, CONTROL, deadline)? {
            PlaneAnswer::Parts(parts) => Ok(parts),
            PlaneAnswer::Subgroup { .. } => {
                Err(Error::Kernel(format!("{CONTROL}: got a subgroup")))
            }
        }
    }

    /// Gathers bytes of all ranks.
    pub(super) fn all_gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let number = self.start_exchange(bytes)?;
        self.parts(number, None)
    }
}

#[derive(Debug, Clone)]
pub(super) struct ProcessMember {
    seat: GroupSeat,
    transport: Arc<dyn Transport>,
}

impl ProcessMember {
    pub(super) fn new(seat: GroupSeat, transport: Box<dyn Transport>) -> Self {
        let transport: Arc<dyn Transport> = transport.into();
        seat.plane.watch(&transport);
        Self { seat, transport }
    }

    fn plane(&self) -> &ControlPlane {
        &self.seat.plane
    }
}

impl Backend for ProcessMember {
    fn rank(&self) -> usize {
        self.seat.rank
    }

    fn world_size(&self) -> usize {
        self.seat.world_size
    }

    fn device(&self) -> Option<&Device> {
        self.transport.device()
    }

    fn receives_ahead(&self) -> bool {
        self.transport.receives_ahead()
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        let Some(first) = batch.first() else {
            self.plane().check("start")?;
            return Ok(Box::new(NoTransfer));
        };
        let op = first.op.name();
        self.plane().check(op)?;
        self.plane().progress();
        let mut order = self.seat.order();
        let mut targets = Vec::with_capacity(batch.len());
        let receipts = !self.transport.sends_end_alone();
        for call in &batch {
            let call = CallSpecs::of(call);
            let target = order.target(call.op);
            let is_awaited = receipts || !matches!(target, Awaited::Receipt { .. });
            targets.push((is_awaited.then_some(target), call.clone()));
            self.plane().send_later(&Frame::Post {
                group: self.seat.group,
                what: Posted::Call(call),
            });
        }
        let started = self.transport.start(batch);
        drop(order);
        match started {
            Ok(transfer) => Ok(Box::new(TransferUnderWay {
                member: self.clone(),
                transfer,
                targets,
            })),
            Err(error) => Err(self.plane().suspect(op, &error)),
        }
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        Ok(Box::new(ControlUnderWay {
            number: self.seat.start_exchange(bytes)?,
            seat: self.seat.clone(),
            deadline,
            open: true,
        }))
    }

    fn fail(&self, reason: &str) {
        self.plane().fail_here(Loss::Failed(reason.to_owned()));
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        let (seat, op) = (&self.seat, "split");
        self.plane().check(op)?;
        self.plane().progress();
        let mut order = seat.order();
        let number = next(&mut order.rounds);
        self.plane().send(&Frame::Post {
            group: seat.group,
            what: Posted::Split { color, key },
        });
        drop(order);
        let round = Awaited::Round(number);
        let answer = self.plane().answer(seat.group, round, op, None)?;
        let PlaneAnswer::Subgroup { number, members } = answer else {
            return Err(Error::Kernel("split: got parts of an exchange".to_owned()));
        };
        let own = members.iter().position(|member| *member == seat.rank);
        let _rest = self.plane().rest();
        let transport = self.transport.subgroup(color, &members);
        let transport = transport.map_err(|error| self.plane().suspect(op, &error))?;
        let seat = GroupSeat {
            group: number,
            rank: own.unwrap_or_default(),
            world_size: members.len(),
            order: Arc::default(),
            plane: seat.plane.clone(),
        };
        Ok(Box::new(Self::new(seat, transport)))
    }

    fn progress(&self) -> Result<()> {
        self.plane().progress();
        self.plane().check("between two calls")
    }
}

/// An empty batch.
#[derive(Debug)]
struct NoTransfer;

impl Ticket for NoTransfer {
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>> {
        Ok(vec![])
    }
}

/// A batch under way.
#[derive(Debug)]
struct TransferUnderWay {
    member: ProcessMember,
    transfer: Box<dyn Transfer>,
    /// No target where the call ends alone.
    targets: Vec<(Option<Awaited>, CallSpecs)>,
}

impl TransferUnderWay {
    /// The call that this rank waits for, as errors name it: the first that brings something.
    fn op(&self) -> String {
        let calls = || self.targets.iter().map(|(_, call)| call);
        let awaited = calls().find(|call| !call.expects.is_empty());
        awaited
            .or(calls().next())
            .map_or_else(String::new, CallSpecs::to_string)
    }

    fn tell(&self) {
        let targets = self.targets.iter();
        let targets = targets.filter_map(|(what, call)| Some(((*what)?, call.to_string())));
        let targets = targets.take(MAX_TARGETS);
        self.member
            .plane()
            .tell(self.member.seat.group, targets.collect());
    }
}

impl Ticket for TransferUnderWay {
    fn wait(mut self: Box<Self>) -> Result<Vec<Tensor>> {
        let plane = self.member.seat.plane.clone();
        let _rest = plane.rest();
        let mut pause = Pause::new();
        let mut told = false;
        let mut overdue = plane.options.deadline;
        loop {
            if let Err(error) = plane.check("") {
                return Err(renamed(error, self.op()));
            }
            match self.transfer.poll() {
                Ok(Some(tensors)) => return Ok(tensors),
                Ok(None) => {}
                Err(error) => {
                    // Whether somebody has returned without a part in it is the first question.
                    self.tell();
                    return Err(plane.suspect(&self.op(), &error));
                }
            }
            let waited = pause.wait(&mut *self.transfer);
            if !told && waited >= TELL {
                told = true;
                self.tell();
            }
            if waited >= overdue {
                let limit = plane.options.deadline;
                let is_exchange = false;
                // Rank 0 cannot tell whether a send may still wait for its receiver.
                if self.targets.iter().all(|(what, _)| what.is_some()) {
                    plane.send(&Frame::Overdue { is_exchange, limit });
                }
                overdue = overdue.saturating_add(limit);
            }
        }
    }
}

/// The error with the name of the operation that it ended.
fn renamed(error: Error, name: String) -> Error {
    match error {
        Error::PeerLost {
            rank,
            lost,
            host,
            reason,
            ..
        } => Error::PeerLost {
            op: name,
            rank,
            lost,
            host,
            reason,
        },
        other => other,
    }
}

/// Waits between two looks: first not at all, then a little longer each time, so that two processes can share a core.
#[derive(Debug)]
struct Pause {
    began: Instant,
    looks: u32,
}

impl Pause {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            looks: 0,
        }
    }

    /// Returns for how long it has waited in all.
    fn wait(&mut self, transfer: &mut dyn Transfer) -> Duration {
        self.looks = self.looks.saturating_add(1);
        match self.looks {
            ..32 => std::hint::spin_loop(),
            32..64 => std::thread::yield_now(),
            _ => {
                let limit = self.began.elapsed() / 16;
                let bounds = (Duration::from_micros(20), Duration::from_millis(1));
                transfer.rest(limit.clamp(bounds.0, bounds.1));
            }
        }
        self.began.elapsed()
    }
}

/// An exchange of the control plane under way.
#[derive(Debug)]
struct ControlUnderWay {
    seat: GroupSeat,
    number: usize,
    deadline: Option<Duration>,
    open: bool,
}

impl Ticket<Vec<Vec<u8>>> for ControlUnderWay {
    fn wait(mut self: Box<Self>) -> Result<Vec<Vec<u8>>> {
        // After an error nothing is kept either.
        self.open = false;
        self.seat.parts(self.number, self.deadline)
    }
}

impl Drop for ControlUnderWay {
    fn drop(&mut self) {
        if self.open {
            let what = Awaited::Exchange(self.number);
            self.seat.plane.forget(self.seat.group, what);
        }
    }
}
