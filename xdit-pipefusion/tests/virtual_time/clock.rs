//! Ranks with a simulated clock: the time of a run with links and blocks of given speed, the same to the last bit on any
//! machine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use xdit_comm::{Backend, Call, Error, Group, Op, Result, Spec, Ticket};
use xdit_kernels::{Device, Tensor};

/// A rank's time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Arc<Mutex<f64>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no rank panics")
}

impl Clock {
    pub(crate) fn now(&self) -> f64 {
        *lock(&self.0)
    }

    pub(crate) fn advance(&self, by: f64) {
        *lock(&self.0) += by;
    }

    /// Waits until then.
    fn reach(&self, at: f64) {
        let mut now = lock(&self.0);
        *now = now.max(at);
    }
}

/// Every link from one rank to another, in one direction. It carries one message after the other; the latency does not
/// keep it busy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) latency: f64,
    /// Seconds a byte.
    pub(crate) byte: f64,
    /// Whether all that comes to a rank shares one link, in the order in which it waits for it.
    pub(crate) one_port: bool,
}

/// When what was sent, shared by all ranks: a stamp is there before its message is.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// Of each pair of ranks, in order.
    sent: Mutex<HashMap<(usize, usize), Vec<f64>>>,
    /// When the last rank came to each exchange of the control plane.
    exchanges: Mutex<Vec<f64>>,
}

/// A group in which a message starts when it was sent, its receive is posted and the link is free; and arrives
/// `latency + bytes · byte` later.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) group: Group,
    pub(crate) clock: Clock,
    pub(crate) speed: Speed,
    pub(crate) stamps: Arc<Stamps>,
    /// A receive counts as posted when it is waited for: what a driver would do that posts none before its compute.
    pub(crate) posts_late: bool,
    inbound: Arc<Mutex<Inbound>>,
}

#[derive(Debug, Default)]
struct Inbound {
    posted: HashMap<usize, usize>,
    arrived: HashMap<usize, usize>,
    /// When the link from each rank has done what it was given.
    free: HashMap<Option<usize>, f64>,
    exchanges: usize,
}

impl Timed {
    pub(crate) fn new(group: Group, clock: Clock, speed: Speed, stamps: Arc<Stamps>) -> Self {
        Self {
            group,
            clock,
            speed,
            stamps,
            posts_late: false,
            inbound: Arc::default(),
        }
    }

    /// When a call is started, and what it waits for.
    fn started(&self, call: &Call, now: f64) -> Result<What> {
        match call.op {
            Op::Send { dst } => {
                let pair = (self.group.rank(), dst);
                lock(&self.stamps.sent).entry(pair).or_default().push(now);
                Ok(What::Nothing)
            }
            Op::Recv { src } => {
                let mut inbound = lock(&self.inbound);
                let posted = inbound.posted.entry(src).or_default();
                *posted += 1;
                Ok(What::Message {
                    src,
                    number: *posted - 1,
                    posted: (!self.posts_late).then_some(now),
                })
            }
            other => Err(Error::Kernel(format!("a pipeline does not call {other}"))),
        }
    }

    fn arrival<T>(&self, ticket: Box<dyn Ticket<T>>, waits: Vec<What>) -> Arrival<T> {
        Arrival {
            ticket,
            waits,
            at: At {
                me: self.group.rank(),
                clock: self.clock.clone(),
                speed: self.speed,
                stamps: self.stamps.clone(),
                inbound: self.inbound.clone(),
            },
        }
    }
}

impl Backend for Timed {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn world_size(&self) -> usize {
        self.group.world_size()
    }

    fn device(&self) -> Option<&Device> {
        self.group.device()
    }

    fn receives_ahead(&self) -> bool {
        self.group.receives_ahead()
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        let now = self.clock.now();
        let waits = batch.iter().map(|call| self.started(call, now));
        let waits = waits.collect::<Result<_>>()?;
        let ticket = self.group.backend().start(batch)?;
        Ok(Box::new(self.arrival(ticket, waits)))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        let now = self.clock.now();
        let round = {
            let mut inbound = lock(&self.inbound);
            inbound.exchanges += 1;
            inbound.exchanges - 1
        };
        {
            let mut rounds = lock(&self.stamps.exchanges);
            if rounds.len() <= round {
                rounds.push(now);
            }
            rounds[round] = rounds[round].max(now);
        }
        let ticket = self.group.backend().start_control(bytes, deadline)?;
        Ok(Box::new(self.arrival(ticket, vec![What::Exchange(round)])))
    }

    fn fail(&self, reason: &str) {
        self.group.backend().fail(reason);
    }

    fn split(&self, _color: usize, _key: usize) -> Result<Box<dyn Backend>> {
        Err(Error::Kernel("a pipeline does not split".into()))
    }
}

#[derive(Debug)]
enum What {
    Nothing,
    Message {
        src: usize,
        number: usize,
        posted: Option<f64>,
    },
    Exchange(usize),
}

#[derive(Debug)]
struct Arrival<T> {
    ticket: Box<dyn Ticket<T>>,
    waits: Vec<What>,
    at: At,
}

/// The rank that waits.
#[derive(Debug)]
struct At {
    me: usize,
    clock: Clock,
    speed: Speed,
    stamps: Arc<Stamps>,
    inbound: Arc<Mutex<Inbound>>,
}

impl At {
    /// The clock goes on to when this was there; a message brings so many bytes.
    fn reach(&self, what: &What, bytes: usize) {
        match *what {
            What::Nothing => {}
            What::Message {
                src,
                number,
                posted,
            } => {
                let sent = lock(&self.stamps.sent)[&(src, self.me)][number];
                let posted = posted.unwrap_or_else(|| self.clock.now());
                let mut inbound = lock(&self.inbound);
                let arrived = inbound.arrived.entry(src).or_default();
                assert_eq!(*arrived, number, "messages are waited for in their order");
                *arrived += 1;
                let link = (!self.speed.one_port).then_some(src);
                let free = inbound.free.entry(link).or_default();
                let start = sent.max(posted).max(*free);
                *free = start + bytes as f64 * self.speed.byte;
                self.clock.reach(*free + self.speed.latency);
            }
            What::Exchange(round) => {
                let last = lock(&self.stamps.exchanges)[round];
                self.clock.reach(last + self.speed.latency);
            }
        }
    }
}

impl Ticket for Arrival<Vec<Tensor>> {
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>> {
        let Self { ticket, waits, at } = *self;
        let tensors = ticket.wait()?;
        let messages = waits
            .iter()
            .filter(|what| matches!(what, What::Message { .. }));
        for (what, tensor) in messages.zip(&tensors) {
            at.reach(what, Spec::of(tensor).bytes());
        }
        Ok(tensors)
    }
}

impl Ticket<Vec<Vec<u8>>> for Arrival<Vec<Vec<u8>>> {
    fn wait(self: Box<Self>) -> Result<Vec<Vec<u8>>> {
        let Self { ticket, waits, at } = *self;
        let bytes = ticket.wait()?;
        waits.iter().for_each(|what| at.reach(what, 0));
        Ok(bytes)
    }
}
