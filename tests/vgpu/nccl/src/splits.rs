//! `ncclCommSplit`.

use std::ffi::c_int;

use crate::arguments::Out;
use crate::comms::{Clique, Comm, Phase, World, delay, handle, ready};
use crate::journal::{self, Event};
use crate::misuse::refuse;
use crate::status::{IN_PROGRESS, INVALID_ARGUMENT, Res, Status};

/// One split of the ranks of a clique: what each has said.
#[derive(Debug, Default)]
pub(crate) struct Split {
    parts: Vec<Option<(c_int, c_int)>>,
    /// The handle of each rank's new communicator, when all have come: 0 for none.
    made: Vec<u64>,
}

/// `NCCL_SPLIT_NOCOLOR`
const NO_COLOR: c_int = -1;

pub(crate) fn split(handle: u64, color: c_int, key: c_int, out: Out<u64>) -> Res {
    let (mut world, index) = ready("ncclCommSplit", handle)?;
    if color < NO_COLOR {
        drop(world);
        return refuse(
            INVALID_ARGUMENT,
            &format!("ncclCommSplit: the color {color}"),
        );
    }
    let comm = world.comm(index);
    let polls = delay(comm);
    let (clique, rank, number) = (comm.clique, comm.rank, comm.splits);
    comm.splits += 1;
    comm.polls = polls;
    comm.phase = Phase::Splitting(number, out);
    world.part(clique, number, rank, (color, key));
    let Clique { meeting, name, .. } = &world.cliques[clique];
    let event = Event::Split {
        clique: name.clone(),
        rank,
        number,
        color,
        key,
    };
    journal::write(*meeting, &event);
    Err(IN_PROGRESS)
}

impl World {
    /// A rank takes part in a split of its clique. When all have, the new communicators are made.
    pub(crate) fn part(&mut self, clique: usize, number: usize, rank: usize, said: (c_int, c_int)) {
        let size = self.cliques[clique].members.len();
        let splits = &mut self.cliques[clique].splits;
        while splits.len() <= number {
            splits.push(Split {
                parts: vec![None; size],
                made: Vec::new(),
            });
        }
        splits[number].parts[rank] = Some(said);
        let parts = splits[number].parts.iter().copied();
        if let Some(parts) = parts.collect::<Option<Vec<_>>>() {
            let made = self.make_parts(clique, number, &parts);
            self.cliques[clique].splits[number].made = made;
        }
    }

    /// The state of a communicator that is being split. The new one's address is only there when the old one is ready again.
    pub(crate) fn split_state(&mut self, index: usize) -> Res<Status> {
        let comm = self.comm(index);
        let Phase::Splitting(number, out) = comm.phase else {
            return Ok(0);
        };
        let (clique, rank) = (comm.clique, comm.rank);
        let made = self.cliques[clique].splits[number].made.get(rank);
        let Some(made) = made.copied() else {
            return Ok(IN_PROGRESS);
        };
        self.comm(index).phase = Phase::Ready;
        out.set(made)?;
        Ok(0)
    }

    /// The new communicators of all ranks.
    fn make_parts(&mut self, clique: usize, number: usize, parts: &[(c_int, c_int)]) -> Vec<u64> {
        let Clique {
            members,
            meeting,
            name,
            ..
        } = &self.cliques[clique];
        let (members, meeting, name) = (members.clone(), *meeting, name.clone());
        let mut made = vec![0; parts.len()];
        let mut colors: Vec<c_int> = parts.iter().map(|(color, _)| *color).collect();
        colors.sort_unstable();
        colors.dedup();
        for color in colors.into_iter().filter(|color| *color != NO_COLOR) {
            let mut ranks: Vec<usize> = (0..parts.len()).filter(|r| parts[*r].0 == color).collect();
            ranks.sort_by_key(|rank| (parts[*rank].1, *rank));
            let mut group = Vec::new();
            for (new, rank) in ranks.iter().enumerate() {
                let parent = self.comm(members[*rank]);
                let (device, gpu) = (parent.device, parent.gpu);
                let phase = match parent.is_elsewhere() {
                    true => Phase::Elsewhere,
                    false => Phase::Ready,
                };
                let comm = Comm::new((new, ranks.len()), device, gpu, phase);
                let index = self.add(Comm { polls: 1, ..comm });
                made[*rank] = handle(index);
                group.push(index);
            }
            self.found(meeting, format!("{name}/{number}.{color}"), group);
        }
        made
    }
}
