//! How ranks come together with one unique id.

use std::ffi::c_int;

use crate::abroad;
use crate::arguments::{Out, UniqueId};
use crate::comms::{Comm, Phase, World, delay, handle, world};
use crate::cuda;
use crate::journal::{self, Event};
use crate::misuse::refuse;
use crate::status::{IN_PROGRESS, INVALID_ARGUMENT, INVALID_USAGE, Res};

/// The process that has made a unique id, and the number of the id in that process.
pub(crate) type MeetingId = (u32, u64);

const MARK: &[u8; 8] = b"vgpunccl";

/// Ranks that come together with one unique id.
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    size: usize,
    /// The communicators of the ranks that have come.
    members: Vec<Option<usize>>,
}

/// A new id.
pub(crate) fn unique_id() -> UniqueId {
    let mut world = world();
    let own = std::process::id();
    let number = 1 + world.meetings.keys().filter(|(of, _)| *of == own).count() as u64;
    world.meetings.insert((own, number), Meeting::default());
    journal::open((own, number));
    let mut id = [0; 128];
    id[..8].copy_from_slice(MARK);
    id[8..16].copy_from_slice(&number.to_le_bytes());
    id[16..20].copy_from_slice(&own.to_le_bytes());
    UniqueId(id)
}

/// What an id says, if it is one.
fn meeting_of(id: &UniqueId) -> Option<MeetingId> {
    let number = u64::from_le_bytes(id.0[8..16].try_into().ok()?);
    let process = u32::from_le_bytes(id.0[16..20].try_into().ok()?);
    (id.0[..8] == *MARK).then_some((process, number))
}

/// `ncclCommInitRankConfig`
pub(crate) fn join(out: Out<u64>, size: c_int, id: UniqueId, rank: c_int) -> Res {
    const CALL: &str = "ncclCommInitRankConfig";
    let device = cuda::current_device()?;
    let gpu = cuda::gpu(device)?;
    let mut world = world();
    let meeting = meeting_of(&id);
    let known = meeting.filter(|id| world.meetings.contains_key(id) || journal::is_there(*id));
    let place = usize::try_from(rank).ok().zip(usize::try_from(size).ok());
    let place = place.filter(|(rank, size)| rank < size);
    let (Some(place), Some(known)) = (place, known) else {
        drop(world);
        let fault = match (known, meeting) {
            (Some(_), _) => format!("{CALL}: rank {rank} of {size}"),
            (None, Some((process, _))) if process != std::process::id() => format!(
                "{CALL}: the unique id is of another process, and without VGPU_NCCL_FOLDER ranks are threads of one"
            ),
            _ => format!("{CALL}: the unique id is none of ncclGetUniqueId"),
        };
        return refuse(INVALID_ARGUMENT, &fault);
    };
    let came = world.come(known, Comm::new(place, device, gpu, Phase::Joining));
    let (index, duplicate) = match came {
        Ok(came) => came,
        Err(fault) => {
            drop(world);
            return refuse(INVALID_USAGE, &format!("{CALL}: {fault}"));
        }
    };
    let comm = world.comm(index);
    // The caller must ask at least once.
    comm.polls = 1 + delay(comm);
    let (rank, size) = place;
    journal::write(known, &Event::Joined { rank, size, gpu });
    abroad::watch(&mut world, known);
    drop(world);
    out.set(handle(index))?;
    match duplicate {
        Some(text) => refuse(INVALID_USAGE, &text),
        None => Err(IN_PROGRESS),
    }
}

impl World {
    /// A rank has come to a meeting. Returns its communicator, and what is wrong with all that have come.
    ///
    /// # Errors
    /// What is wrong with this one.
    pub(crate) fn come(
        &mut self,
        id: MeetingId,
        comm: Comm,
    ) -> Result<(usize, Option<String>), String> {
        let (rank, size) = (comm.rank, comm.size);
        let meeting = self.meetings.entry(id).or_default();
        if meeting.size == 0 {
            (meeting.size, meeting.members) = (size, vec![None; size]);
        }
        if meeting.size != size {
            let other = meeting.size;
            return Err(format!("{size} ranks, and another rank said {other}"));
        }
        if meeting.members.iter().all(Option::is_some) {
            return Err("the unique id was used before".to_owned());
        }
        if meeting.members[rank].is_some() {
            return Err(format!("two processes are rank {rank}"));
        }
        let index = self.add(comm);
        if let Some(meeting) = self.meetings.get_mut(&id) {
            meeting.members[rank] = Some(index);
        }
        Ok((index, self.meet(id)))
    }

    /// Lets the ranks of a meeting begin if all have come. Returns what is wrong with them.
    fn meet(&mut self, id: MeetingId) -> Option<String> {
        let members = self.meetings.get(&id)?.members.iter().copied();
        let members: Vec<usize> = members.collect::<Option<_>>()?;
        let gpus: Vec<u64> = members.iter().map(|index| self.comm(*index).gpu).collect();
        let mut pairs = (0..gpus.len()).flat_map(|a| (0..a).map(move |b| (b, a)));
        if let Some((a, b)) = pairs.find(|(a, b)| gpus[*a] == gpus[*b]) {
            self.break_all(id);
            let gpu = gpus[a];
            return Some(format!(
                "Duplicate GPU detected : rank {a} and rank {b} both on CUDA device {gpu}"
            ));
        }
        self.found(id, String::new(), members);
        None
    }

    /// The ranks of this process that have come to a meeting cannot begin.
    pub(crate) fn break_all(&mut self, id: MeetingId) {
        let members = self
            .meetings
            .get(&id)
            .map(|meeting| meeting.members.clone());
        for member in members.into_iter().flatten().flatten() {
            let comm = self.comm(member);
            if !comm.is_elsewhere() {
                comm.phase = Phase::Broken(INVALID_USAGE);
            }
        }
    }
}
