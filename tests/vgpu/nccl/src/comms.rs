//! Communicators: how ranks come together, and in which state each rank's is.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::abroad::Abroad;
use crate::arguments::Out;
use crate::cuda;
use crate::meetings::{Meeting, MeetingId};
use crate::messages::{Lanes, Launch, Presence};
use crate::misuse::refuse;
use crate::settings;
use crate::splits::Split;
use crate::status::{IN_PROGRESS, INVALID_ARGUMENT, INVALID_USAGE, REMOTE_ERROR, Res, Status};

/// A handle of a communicator has these bits above its index.
const TAG: u64 = 0xcc << 32;

/// What the calls of all ranks share.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// By what unique ids say.
    pub(crate) meetings: HashMap<MeetingId, Meeting>,
    comms: Vec<Comm>,
    pub(crate) cliques: Vec<Clique>,
    /// What is known of other processes.
    pub(crate) abroad: Abroad,
}

/// The communicators of ranks that came together.
#[derive(Debug)]
pub(crate) struct Clique {
    pub(crate) meeting: MeetingId,
    /// Distinguishes the cliques of a meeting, in all processes.
    pub(crate) name: String,
    pub(crate) lanes: Lanes,
    /// The communicator of each rank.
    pub(crate) members: Vec<usize>,
    /// By their order.
    pub(crate) splits: Vec<Split>,
}

/// One rank's communicator.
#[derive(Debug)]
pub(crate) struct Comm {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    pub(crate) device: c_int,
    /// Which GPU of the machine that is.
    pub(crate) gpu: u64,
    pub(crate) clique: usize,
    pub(crate) phase: Phase,
    /// How often a call that could be complete is still said to be in progress.
    pub(crate) polls: u32,
    /// How often its state was asked for.
    pub(crate) asked: u32,
    /// How often `polls` was drawn.
    pub(crate) draws: u64,
    pub(crate) splits: usize,
    /// How many groups have begun.
    pub(crate) groups: usize,
    /// The groups that have perhaps not ended.
    pub(crate) under_way: Vec<Arc<Presence>>,
    pub(crate) aborted: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// The other ranks have not all come.
    Joining,
    Ready,
    /// A group that is not yet in its stream.
    Launching(Arc<Launch>),
    /// Where the new communicator goes.
    Splitting(usize, Out<u64>),
    Broken(Status),
    /// Its rank is one of another process, which knows more.
    Elsewhere,
    /// Whether it has been.
    Finalizing(bool),
    Aborted,
    Destroyed,
}

/// How often a call is still in progress when it could be complete: drawn from the seed, for each rank in its order.
pub(crate) fn delay(comm: &mut Comm) -> u32 {
    comm.draws += 1;
    let mixed = (settings::seed().wrapping_add(1))
        .wrapping_mul(0x9e37_79b9)
        .wrapping_add((comm.rank as u64).wrapping_mul(0x85eb_ca6b))
        .wrapping_add(comm.draws.wrapping_mul(0xc2b2_ae35));
    ((mixed ^ (mixed >> 13)) % 4) as u32
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// The lock on the world. Its holder calls no function of the double of libcuda.
pub(crate) struct Guard(MutexGuard<'static, Option<World>>);

impl std::ops::Deref for Guard {
    type Target = World;

    fn deref(&self) -> &World {
        match &*self.0 {
            Some(world) => world,
            None => unreachable!("`world` fills it"),
        }
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut World {
        self.0.get_or_insert_default()
    }
}

pub(crate) fn world() -> Guard {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if world.is_none() {
        *world = Some(World::default());
        // SAFETY: the function has the type that atexit wants. This library is not unloaded.
        unsafe { libc::atexit(at_exit) };
    }
    Guard(world)
}

/// Before the double of libcuda tells what it has found: that one was asked to earlier.
extern "C" fn at_exit() {
    let world = world();
    let is_over =
        |phase: &Phase| matches!(phase, Phase::Aborted | Phase::Destroyed | Phase::Elsewhere);
    let alive = |comm: &&Comm| !is_over(&comm.phase);
    let left: Vec<String> = (world.comms.iter().filter(alive))
        .map(|comm| format!("rank {} of {}", comm.rank, comm.size))
        .collect();
    drop(world);
    if !left.is_empty() {
        let text = format!(
            "nccl: communicators neither aborted nor destroyed: {}",
            left.join(", ")
        );
        cuda::report(&text);
    }
}

impl Comm {
    /// The communicator of a rank on this device of the process, and GPU of the machine.
    pub(crate) fn new((rank, size): (usize, usize), device: c_int, gpu: u64, phase: Phase) -> Self {
        Self {
            rank,
            size,
            device,
            gpu,
            clique: 0,
            phase,
            polls: 0,
            asked: 0,
            draws: 0,
            splits: 0,
            groups: 0,
            under_way: Vec::new(),
            aborted: Arc::default(),
        }
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.phase, Phase::Elsewhere)
    }
}

impl World {
    /// The comm of a handle, whatever its state.
    fn index(&self, handle: u64) -> Option<usize> {
        let index = (handle ^ TAG) as usize;
        (index < self.comms.len()).then_some(index)
    }

    pub(crate) fn comm(&mut self, index: usize) -> &mut Comm {
        &mut self.comms[index]
    }

    /// Adds a communicator; its index.
    pub(crate) fn add(&mut self, comm: Comm) -> usize {
        self.comms.push(comm);
        self.comms.len() - 1
    }

    /// Makes a clique of communicators, in rank order.
    pub(crate) fn found(&mut self, meeting: MeetingId, name: String, members: Vec<usize>) {
        let clique = self.cliques.len();
        for member in &members {
            let comm = &mut self.comms[*member];
            comm.clique = clique;
            if !comm.is_elsewhere() {
                comm.phase = Phase::Ready;
            }
        }
        self.cliques.push(Clique {
            meeting,
            name,
            members,
            lanes: Lanes::default(),
            splits: Vec::new(),
        });
    }
}

/// The handle of a communicator.
pub(crate) fn handle(index: usize) -> u64 {
    TAG | index as u64
}

/// The communicator of a handle that a call names, which has not ended; with the world.
pub(crate) fn living(call: &str, handle: u64) -> Res<(Guard, usize)> {
    let mut world = world();
    let Some(index) = world.index(handle) else {
        drop(world);
        return refuse(
            INVALID_ARGUMENT,
            &format!("{call}: {handle:#x} is no communicator"),
        );
    };
    let fault = match world.comm(index).phase {
        Phase::Aborted => "aborted",
        Phase::Destroyed => "destroyed",
        _ => return Ok((world, index)),
    };
    drop(world);
    refuse(
        INVALID_ARGUMENT,
        &format!("{call} of a communicator that was {fault}"),
    )
}

/// As [`living`], of a communicator that has nothing in progress, on a thread whose device is its own.
pub(crate) fn ready(call: &str, handle: u64) -> Res<(Guard, usize)> {
    let current = cuda::current_device()?;
    let (mut world, index) = living(call, handle)?;
    let Comm {
        phase,
        device,
        polls,
        ..
    } = world.comm(index);
    let (fault, status) = match phase {
        Phase::Broken(status) => return Err(*status),
        Phase::Ready if *polls == 0 && *device == current => return Ok((world, index)),
        Phase::Ready if *polls == 0 => (
            format!("{call}: the current device is {current}, the communicator's is {device}"),
            INVALID_USAGE,
        ),
        _ => (
            format!("{call} while another call of the communicator is in progress"),
            INVALID_USAGE,
        ),
    };
    drop(world);
    refuse(status, &fault)
}

/// `ncclCommGetAsyncError`: the state, after what was in progress has got on.
pub(crate) fn state(handle: u64) -> Res<Status> {
    let (mut world, index) = living("ncclCommGetAsyncError", handle)?;
    let comm = world.comm(index);
    comm.asked += 1;
    if settings::breakage().is_some_and(|(rank, polls)| rank == comm.rank && comm.asked > polls) {
        comm.phase = Phase::Broken(REMOTE_ERROR);
        return Ok(REMOTE_ERROR);
    }
    if world.comm(index).polls > 0 {
        world.comm(index).polls -= 1;
        return Ok(IN_PROGRESS);
    }
    match &world.comm(index).phase {
        Phase::Ready => Ok(0),
        Phase::Joining => Ok(IN_PROGRESS),
        Phase::Broken(status) => Ok(*status),
        Phase::Launching(launch) => {
            let launch = Arc::clone(launch);
            let clique = world.comm(index).clique;
            if !world.cliques[clique].lanes.connect(&launch) {
                return Ok(IN_PROGRESS);
            }
            world.comm(index).phase = Phase::Ready;
            drop(world);
            cuda::queue(&launch).map_or_else(Ok, |()| Ok(0))
        }
        Phase::Finalizing(true) => Ok(0),
        Phase::Finalizing(false) => {
            let comm = world.comm(index);
            comm.under_way
                .retain(|other| !other.delivered.load(Ordering::Acquire));
            comm.phase = Phase::Finalizing(comm.under_way.is_empty());
            let stream = comm.under_way.first().map(|other| other.stream);
            drop(world);
            if let Some(stream) = stream {
                cuda::look_at_stream(stream);
            }
            Ok(IN_PROGRESS)
        }
        Phase::Splitting(..) => world.split_state(index),
        Phase::Aborted | Phase::Destroyed | Phase::Elsewhere => Err(INVALID_ARGUMENT),
    }
}

/// `ncclCommAbort`
pub(crate) fn abort(handle: u64) -> Res {
    let (mut world, index) = living("ncclCommAbort", handle)?;
    let comm = world.comm(index);
    comm.phase = Phase::Aborted;
    comm.aborted.store(true, Ordering::Release);
    drop(world);
    cuda::wake();
    Ok(())
}

/// `ncclCommFinalize`
pub(crate) fn finalize(handle: u64) -> Res {
    let (mut world, index) = ready("ncclCommFinalize", handle)?;
    world.comm(index).phase = Phase::Finalizing(false);
    Err(IN_PROGRESS)
}

/// `ncclCommDestroy`, after `ncclCommFinalize`.
pub(crate) fn destroy(handle: u64) -> Res {
    const CALL: &str = "ncclCommDestroy";
    let (mut world, index) = living(CALL, handle)?;
    let comm = world.comm(index);
    if matches!(comm.phase, Phase::Finalizing(true)) {
        comm.phase = Phase::Destroyed;
        return Ok(());
    }
    drop(world);
    refuse(
        INVALID_USAGE,
        &format!("{CALL} of a communicator that has not been finalized"),
    )
}
