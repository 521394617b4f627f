//! Checks that ring hops are in flight while blocks are computed. Links and attention take a fixed time: both sleep, so that the
//! load of the machine has little effect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use xdit_comm::{Backend, Call, DeviceMesh, Error, Group, MeshShape, Op, Result, Ticket, threads};
use xdit_kernels::{
    Device, Tensor,
    attention::{Attention, AttnInput, AttnOut, Flash},
};
use xdit_usp::{RING, Ring, ShardOrder, ULYSSES, plan};

const RANKS: usize = 4;
/// Of one block on one rank, and of a message on a link.
const BLOCK: Duration = Duration::from_millis(120);
const HOP: Duration = Duration::from_millis(100);

/// When the messages of each pair of ranks, in order, were sent.
type Sent = Arc<Mutex<HashMap<(usize, usize), Vec<Instant>>>>;

/// What happened on a rank, and when.
type Trace = Arc<Mutex<Vec<(&'static str, Instant, Instant)>>>;

/// A group whose messages take [`HOP`] to arrive.
#[derive(Debug)]
struct SlowLinks {
    group: Group,
    sent: Sent,
    received: Mutex<HashMap<usize, usize>>,
    trace: Trace,
}

impl Backend for SlowLinks {
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
        let me = self.group.rank();
        let mut links = Vec::new();
        for call in &batch {
            match call.op {
                Op::Send { dst } => {
                    let mut sent = self.sent.lock().expect("no rank panics");
                    sent.entry((me, dst)).or_default().push(Instant::now());
                }
                Op::Recv { src } => {
                    let mut received = self.received.lock().expect("no rank panics");
                    let number = received.entry(src).or_default();
                    links.push(Link {
                        pair: (src, me),
                        number: *number,
                        sent: self.sent.clone(),
                        trace: self.trace.clone(),
                    });
                    *number += 1;
                }
                other => return Err(Error::Kernel(format!("a ring does not call {other}"))),
            }
        }
        let ticket = self.group.backend().start(batch)?;
        Ok(Box::new(Arrival { ticket, links }))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        let ticket = self.group.backend().start_control(bytes, deadline)?;
        Ok(ticket)
    }

    fn fail(&self, reason: &str) {
        self.group.backend().fail(reason);
    }

    fn split(&self, _color: usize, _key: usize) -> Result<Box<dyn Backend>> {
        Err(Error::Kernel("a ring does not split".into()))
    }
}

#[derive(Debug)]
struct Link {
    pair: (usize, usize),
    number: usize,
    sent: Sent,
    trace: Trace,
}

#[derive(Debug)]
struct Arrival {
    ticket: Box<dyn Ticket>,
    links: Vec<Link>,
}

impl Ticket for Arrival {
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>> {
        let tensors = self.ticket.wait()?;
        for link in self.links {
            let began = link.sent.lock().expect("no rank panics")[&link.pair][link.number];
            let due = began + HOP;
            sleep(due.saturating_duration_since(Instant::now()));
            let mut trace = link.trace.lock().expect("no rank panics");
            trace.push(("hop", began, due));
        }
        Ok(tensors)
    }
}

/// An attention that takes [`BLOCK`] at least.
struct Slow {
    trace: Trace,
}

impl Attention for Slow {
    fn attend(&mut self, input: &AttnInput<'_>) -> xdit_kernels::Result<AttnOut> {
        let began = Instant::now();
        let out = Flash.attend(input)?;
        sleep((began + BLOCK).saturating_duration_since(Instant::now()));
        let mut trace = self.trace.lock().expect("no rank panics");
        trace.push(("block", began, Instant::now()));
        Ok(out)
    }
}

#[test]
fn hops_are_in_flight_while_blocks_are_computed() {
    let sent = Sent::default();
    let ranks = threads::run(RANKS, move |world| {
        let shape = MeshShape::new([(RING, RANKS), (ULYSSES, 1)]);
        let mesh = DeviceMesh::new(&world, shape)?;
        let plan = plan(&mesh, ShardOrder::Contiguous)?;
        let trace = Trace::default();
        let links = SlowLinks {
            group: mesh.group(RING)?.clone(),
            sent: sent.clone(),
            received: Mutex::default(),
            trace: trace.clone(),
        };
        let inner = Slow {
            trace: trace.clone(),
        };
        let mut ring = Ring::new(Group::new(Box::new(links)), plan, inner)?;
        let x = Tensor::from_slice(&[0.5f32; 8 * 2 * 32], [1, 8, 2, 32], &Device::cpu())?;
        let segments = plan.segments(&[8 * RANKS], world.rank(), 0);
        world.barrier()?;
        let began = Instant::now();
        ring.attend(&AttnInput::new(&x, &x, &x).with_segments(&segments))?;
        let total = began.elapsed();
        let events = trace.lock().expect("no rank panics").clone();
        Ok((began, total, events))
    });
    let hops = RANKS as u32 - 1;
    let (compute, communication) = (BLOCK * RANKS as u32, HOP * hops);
    // The bound. One after the other they would take `compute + communication`.
    let limit = compute + communication.mul_f64(0.3);
    for (rank, (start, total, events)) in ranks.expect("no rank fails").into_iter().enumerate() {
        for (what, from, to) in &events {
            let at = |t: &Instant| t.saturating_duration_since(start).as_millis();
            println!("rank {rank}: {what} {} to {} ms", at(from), at(to));
        }
        let of = |name| events.iter().filter(move |(what, ..)| *what == name);
        assert_eq!(of("block").count(), RANKS);
        // Keys and values are two messages.
        assert_eq!(of("hop").count(), 2 * (RANKS - 1));
        for (_, sent, due) in of("hop") {
            let under: Duration = of("block")
                .map(|(_, from, to)| (*to.min(due)).saturating_duration_since(*from.max(sent)))
                .sum();
            assert!(
                under >= HOP.mul_f64(0.7),
                "rank {rank}: {under:?} of a hop's {HOP:?} are under a block"
            );
        }
        assert!(
            total < limit,
            "rank {rank}: {total:?} for {compute:?} of blocks and {communication:?} of hops"
        );
    }
}
