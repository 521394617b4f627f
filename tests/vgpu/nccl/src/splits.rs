//! `ncclCommSplit`.

use std::ffi::c_int;
use std::sync::Arc;

use crate::arguments::Out;
use crate::comms::{Comm, Phase, World, delay, ready};
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
    let (clique, rank, size, number) = (comm.clique, comm.rank, comm.size, comm.splits);
    comm.splits += 1;
    comm.polls = polls;
    comm.phase = Phase::Splitting(number, out);
    let splits = &mut world.cliques[clique].splits;
    if splits.len() == number {
        splits.push(Split {
            parts: vec![None; size],
            made: Vec::new(),
        });
    }
    splits[number].parts[rank] = Some((color, key));
    Err(IN_PROGRESS)
}

impl World {
    /// The state of a communicator that is being split. The new one's address is only there when the old one is ready again.
    pub(crate) fn split_state(&mut self, index: usize) -> Res<Status> {
        let comm = self.comm(index);
        let Phase::Splitting(number, out) = comm.phase else {
            return Ok(0);
        };
        let (clique, rank) = (comm.clique, comm.rank);
        if self.cliques[clique].splits[number].made.is_empty() {
            let parts = &self.cliques[clique].splits[number].parts;
            let Some(parts) = parts.iter().copied().collect::<Option<Vec<_>>>() else {
                return Ok(IN_PROGRESS);
            };
            let made = self.make_parts(clique, &parts);
            self.cliques[clique].splits[number].made = made;
        }
        let made = self.cliques[clique].splits[number].made[rank];
        self.comm(index).phase = Phase::Ready;
        out.set(made)?;
        Ok(0)
    }

    /// The new communicators of all ranks.
    fn make_parts(&mut self, clique: usize, parts: &[(c_int, c_int)]) -> Vec<u64> {
        let members = self.cliques[clique].members.clone();
        let mut made = vec![0; parts.len()];
        let mut colors: Vec<c_int> = parts.iter().map(|(color, _)| *color).collect();
        colors.sort_unstable();
        colors.dedup();
        for color in colors.into_iter().filter(|color| *color != NO_COLOR) {
            let mut ranks: Vec<usize> = (0..parts.len()).filter(|r| parts[*r].0 == color).collect();
            ranks.sort_by_key(|rank| (parts[*rank].1, *rank));
            let mut group = Vec::new();
            for (new, rank) in ranks.iter().enumerate() {
                let device = self.comm(members[*rank]).device;
                let handle = self.add(Comm {
                    rank: new,
                    size: ranks.len(),
                    device,
                    clique: 0,
                    phase: Phase::Ready,
                    polls: 1,
                    asked: 0,
                    draws: 0,
                    splits: 0,
                    under_way: Vec::new(),
                    aborted: Arc::default(),
                });
                made[*rank] = handle;
                group.push((handle & 0xffff_ffff) as usize);
            }
            self.found(group);
        }
        made
    }
}
