//! Ranks of other processes: what their journals say happens in the world of this process, as if they were threads of it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::comms::{Comm, Phase, World, world};
use crate::cuda;
use crate::journal::{self, Event, Reader};
use crate::meetings::MeetingId;
use crate::messages::{Extent, Launch, Parcel, Presence};
use crate::misuse::refuse;
use crate::status::INVALID_USAGE;

/// How often journals are read.
const LOOK: Duration = Duration::from_micros(200);
/// The stream of a group of another process, as a gate sees it: nothing that this process has queued opens it.
const NOWHERE: u64 = 1;

/// A group of another process: by clique, rank and number.
type GroupId = (usize, usize, usize);

/// A group to which the stream of its rank has not come, and what it sends to this process.
type GroupAbroad = (Arc<Presence>, Vec<Option<Arc<Parcel>>>);

/// What is known of the ranks of other processes.
#[derive(Debug, Default)]
pub(crate) struct Abroad {
    meetings: Vec<MeetingId>,
    groups: HashMap<GroupId, GroupAbroad>,
    /// Groups of this process that ranks of others take part in.
    launches: Vec<Arc<Launch>>,
}

/// Reads the journals of the other processes of a meeting from now on, if ranks are processes.
pub(crate) fn watch(world: &mut World, id: MeetingId) {
    if journal::folder(id).is_none() || world.abroad.meetings.contains(&id) {
        return;
    }
    let is_first = world.abroad.meetings.is_empty();
    world.abroad.meetings.push(id);
    if is_first {
        std::thread::spawn(look_around);
    }
}

/// What the thread does that reads journals.
fn look_around() {
    let mut readers: HashMap<PathBuf, (MeetingId, Reader)> = HashMap::new();
    let own = std::process::id().to_string();
    loop {
        let meetings = world().abroad.meetings.clone();
        for id in meetings {
            let entries = journal::folder(id).and_then(|folder| fs::read_dir(folder).ok());
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name() != *own && !readers.contains_key(&path) {
                    // It may be gone again, with its test.
                    if let Ok(file) = File::open(&path) {
                        readers.insert(path, (id, Reader::new(file)));
                    }
                }
            }
        }
        let (mut heard, mut faults) = (false, Vec::new());
        for (id, reader) in readers.values_mut() {
            reader.read();
            let mut world = world();
            while let Some(event) = reader.peek() {
                if !world.hear(*id, event, &mut faults) {
                    break;
                }
                reader.pop();
                heard = true;
            }
        }
        for fault in faults {
            let _ = refuse::<()>(INVALID_USAGE, &fault);
        }
        if heard {
            cuda::wake();
        }
        let awaited = world().awaited();
        for launch in awaited {
            // Its process waits for its GPU, and that for this group, whatever the policy of this process says.
            let has_come = || launch.presence.arrived.load(Ordering::Acquire);
            while !has_come() && cuda::step(launch.presence.stream) {
                std::hint::spin_loop();
            }
        }
        std::thread::sleep(LOOK);
    }
}

impl World {
    /// A rank of another process has done something. Returns false if something must be heard first that another one says.
    fn hear(&mut self, id: MeetingId, event: &Event, faults: &mut Vec<String>) -> bool {
        let (name, rank, number) = match event {
            Event::Joined { rank, size, gpu } => {
                match self.come(id, Comm::new((*rank, *size), -1, *gpu, Phase::Elsewhere)) {
                    Ok((_, fault)) => faults.extend(fault),
                    Err(fault) => {
                        self.break_all(id);
                        faults.push(fault);
                    }
                }
                return true;
            }
            Event::Split {
                clique,
                rank,
                number,
                ..
            }
            | Event::Grouped {
                clique,
                rank,
                number,
                ..
            }
            | Event::Arrived {
                clique,
                rank,
                number,
                ..
            } => (clique, *rank, *number),
        };
        let mut cliques = self.cliques.iter();
        let Some(clique) = cliques.position(|it| it.meeting == id && it.name == *name) else {
            return false;
        };
        match event {
            Event::Joined { .. } => {}
            Event::Split { color, key, .. } => self.part(clique, number, rank, (*color, *key)),
            Event::Grouped { items, .. } => {
                self.group_abroad((clique, rank, number), items, faults)
            }
            Event::Arrived { data, .. } => {
                if let Some((presence, parcels)) =
                    self.abroad.groups.remove(&(clique, rank, number))
                {
                    for (parcel, bytes) in parcels.iter().zip(data) {
                        if let Some(parcel) = parcel {
                            parcel.fill(bytes);
                        }
                    }
                    presence.arrived.store(true, Ordering::Release);
                }
            }
        }
        true
    }

    /// A rank of another process has begun a group. What it exchanges with others than ranks of this process does not matter here.
    fn group_abroad(
        &mut self,
        group: GroupId,
        items: &[(bool, usize, Extent)],
        faults: &mut Vec<String>,
    ) {
        let (clique, rank, _) = group;
        let presence = Arc::new(Presence {
            stream: NOWHERE,
            label: format!("group of rank {rank} of another process"),
            arrived: AtomicBool::new(false),
            delivered: AtomicBool::new(false),
            aborted: Arc::default(),
        });
        let mut parcels = Vec::new();
        for (is_send, peer, extent) in items {
            let member = self.cliques[clique].members[*peer];
            let is_here = !self.comm(member).is_elsewhere();
            let lanes = &mut self.cliques[clique].lanes;
            match (is_send, is_here) {
                (true, true) => {
                    let parcel = lanes.send((rank, *peer), *extent, &presence, faults);
                    parcels.push(Some(parcel));
                }
                (true, false) => parcels.push(None),
                (false, true) => drop(lanes.receive((*peer, rank), *extent, &presence, faults)),
                (false, false) => {}
            }
        }
        self.abroad.groups.insert(group, (presence, parcels));
    }

    /// A group of this process has begun.
    pub(crate) fn note_launch(&mut self, launch: &Arc<Launch>) {
        let is_over = |launch: &Launch| {
            launch.presence.delivered.load(Ordering::Acquire)
                || launch.presence.aborted.load(Ordering::Acquire)
        };
        self.abroad.launches.retain(|launch| !is_over(launch));
        self.abroad.launches.push(Arc::clone(launch));
    }

    /// The groups of this process to which their streams have not come, and for which GPUs of others wait.
    fn awaited(&self) -> Vec<Arc<Launch>> {
        let launches = self.abroad.launches.iter();
        launches
            .filter(|launch| launch.is_awaited())
            .cloned()
            .collect()
    }

    /// The ranks of a clique that are of other processes.
    pub(crate) fn elsewhere(&mut self, clique: usize) -> HashSet<usize> {
        let members = self.cliques[clique].members.clone();
        let ranks = members.into_iter().enumerate();
        ranks
            .filter(|(_, member)| self.comm(*member).is_elsewhere())
            .map(|(rank, _)| rank)
            .collect()
    }
}
