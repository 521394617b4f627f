//! What the ranks of a group of processes do before they draw: the first of each replica encodes the prompts for all of them, and
//! all wait until everybody has loaded its weights. Who reads weights or encodes reports progress meanwhile ([`attended`]).

use xdit_comm::{Call, Group, Op, Spec};
use xdit_kernels::Tensor;

use super::RankContext;
use crate::error::Result;
use crate::ranks::attended::attended;
use crate::ranks::axes;

impl RankContext {
    /// Returns the tensors that the first rank of the replica makes, on all its ranks. Only there `make` is called. All ranks know
    /// their specs.
    ///
    /// # Collective
    /// Every rank of a replica calls it.
    pub(crate) fn made_by_first(
        &self,
        specs: &[Spec],
        make: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let made = match self.leads() {
            true => self.attended(make)??,
            false => Vec::new(),
        };
        let Some(ranks) = self.ranks.as_ref().filter(|_| self.shares_pictures()) else {
            return Ok(made);
        };
        let group = &ranks.replica;
        // Here the others wait for the encoders. No transport begins a message that comes minutes later.
        group.control().all_gather(&[])?;
        let call = |(i, spec): (usize, &Spec)| Call {
            op: Op::Broadcast { root: 0 },
            gives: made.get(i).cloned().into_iter().collect(),
            expects: vec![*spec],
        };
        let batch = specs.iter().enumerate().map(call).collect();
        Ok(group.start(batch)?.wait()?)
    }

    /// Runs long work on which other ranks wait ([`attended`]).
    pub(crate) fn attended<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        match &self.ranks {
            Some(ranks) => attended(ranks.mesh.world(), work),
            None => Ok(work()),
        }
    }

    /// Returns the first rank of each replica, and the group of all ranks.
    pub(crate) fn leaders(&self) -> Option<(&Group, Vec<usize>)> {
        let ranks = self.ranks.as_ref()?;
        let (world, degrees) = (ranks.mesh.world(), ranks.degrees);
        let leads = |rank: &usize| degrees.place_in_replica(*rank, ranks.placement) == 0;
        let mut leaders: Vec<usize> = (0..world.world_size()).filter(leads).collect();
        leaders.sort_by_key(|rank| degrees.coord(*rank, axes::DATA));
        Some((world, leaders))
    }

    /// Returns the bytes of all ranks, in rank order.
    ///
    /// # Collective
    /// Every rank of the world calls it.
    pub(crate) fn gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        match &self.ranks {
            Some(ranks) => Ok(ranks.mesh.world().control().all_gather(own)?),
            None => Ok(vec![own.to_vec()]),
        }
    }

    /// Waits until every rank has loaded what it needs, so that no message of the data plane waits for that.
    ///
    /// # Collective
    /// Every rank of the world calls it.
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        if let Some(ranks) = &self.ranks {
            ranks.mesh.world().control().all_gather(&[])?;
        }
        Ok(())
    }
}
