//! The one place that names every strategy: how ranks make one picture together.
//!
//! A [`Team`] is what a rank knows of the others. Models never see it: they are handed attention, rows and positions that
//! are this rank's, and return this rank's rows.

mod bands;

use xdit_comm::{Axis, Degrees, DeviceMesh, Group, Shard, Spec, Stats};
use xdit_kernels::attention::{Attention, Flash, Segment};
use xdit_kernels::{Tensor, View};
use xdit_usp::{Order, SequencePlan, usp};

use crate::error::Result;
use crate::vae::VaeDecoder;

/// One rank among those that make pictures together.
#[derive(Debug)]
pub(crate) struct Team {
    /// `None` for a rank that is alone.
    ranks: Option<Ranks>,
}

#[derive(Debug)]
struct Ranks {
    mesh: DeviceMesh,
    /// The ranks that make the same pictures: those of one place on the data axis.
    replica: Group,
    plan: SequencePlan,
}

impl Team {
    /// A rank that does everything.
    pub(crate) fn alone() -> Self {
        Self { ranks: None }
    }

    /// This rank's place on a mesh over `world`.
    ///
    /// # Collective
    /// Every rank of the world calls it with the same degrees.
    pub(crate) fn join(world: &Group, degrees: Degrees) -> Result<Self> {
        let mesh = DeviceMesh::new(world, degrees)?;
        let replica = world.split(mesh.coord(Axis::Data), world.rank())?;
        let plan = xdit_usp::plan(&mesh, Order::Contiguous);
        Ok(Self {
            ranks: Some(Ranks {
                mesh,
                replica,
                plan,
            }),
        })
    }

    /// Which replica this rank belongs to.
    pub(crate) fn replica(&self) -> usize {
        self.ranks
            .as_ref()
            .map_or(0, |ranks| ranks.mesh.coord(Axis::Data))
    }

    /// Whether this rank speaks for its replica.
    pub(crate) fn leads(&self) -> bool {
        self.ranks
            .as_ref()
            .is_none_or(|ranks| ranks.replica.rank() == 0)
    }

    /// Whether streams are cut over several ranks.
    pub(crate) fn shares_sequence(&self) -> bool {
        self.ranks
            .as_ref()
            .is_some_and(|ranks| ranks.replica.world_size() > 1)
    }

    /// What this rank has sent so far.
    pub(crate) fn stats(&self) -> Option<Stats> {
        self.ranks.as_ref().map(|ranks| ranks.mesh.world().stats())
    }

    /// Attention over whole streams of which this rank holds some rows: the nest of strategies around the kernel.
    pub(crate) fn attention(&self) -> Result<Box<dyn Attention>> {
        Ok(match &self.ranks {
            None => Box::new(Flash),
            Some(ranks) => Box::new(usp(&ranks.mesh, Order::Contiguous, Flash)?),
        })
    }

    /// Which rows of a stream of `total` this rank holds.
    pub(crate) fn segment(&self, total: usize) -> Segment {
        let rows = match &self.ranks {
            None => Shard {
                start: 0,
                len: total,
            },
            Some(ranks) => ranks.rows(total, ranks.replica.rank()),
        };
        Segment {
            start: rows.start,
            len: rows.len,
            total,
        }
    }

    /// This rank's rows of a whole stream `[b, l, ..]`.
    pub(crate) fn shard(&self, whole_blc: &Tensor) -> Result<Tensor> {
        let Segment { start, len, total } = self.segment(whole_blc.dim(1));
        if len == total {
            return Ok(whole_blc.clone());
        }
        Ok(whole_blc.view().narrow(1, start, len)?.to_tensor()?)
    }

    /// The whole stream `[b, total, ..]`, on every rank, from the rows of each.
    ///
    /// # Collective
    /// Every rank of a replica calls it.
    pub(crate) fn gather(&self, rows_blc: Tensor, total: usize) -> Result<Tensor> {
        let Some(ranks) = self.ranks.as_ref().filter(|_| self.shares_sequence()) else {
            return Ok(rows_blc);
        };
        let expected: Vec<Spec> = (0..ranks.replica.world_size())
            .map(|rank| {
                let mut shape = rows_blc.shape().to_vec();
                shape[1] = ranks.rows(total, rank).len;
                Spec::new(shape.as_slice(), rows_blc.dtype())
            })
            .collect();
        let parts = ranks.replica.all_gather(&rows_blc, &expected)?;
        let views: Vec<View<'_>> = parts.iter().map(Tensor::view).collect();
        Ok(Tensor::cat(&views, 1)?.on(rows_blc.device()))
    }
}

impl Team {
    /// The pictures of latents `[b, h, w, c]`, on the rank that speaks for the replica; every rank decodes a band of rows.
    ///
    /// # Collective
    /// Every rank of a replica calls it with the same latents.
    pub(crate) fn decode(
        &self,
        decoder: &VaeDecoder,
        latents_bhwc: &Tensor,
    ) -> Result<Option<Tensor>> {
        match &self.ranks {
            None => decoder.forward(latents_bhwc, &mut ()).map(Some),
            Some(ranks) => decoder.forward_over(latents_bhwc, &ranks.replica),
        }
    }
}

impl Ranks {
    /// The rows of a stream that a rank of the replica holds. Ranks are `ulysses + U · ring`, so that their rows follow
    /// each other.
    fn rows(&self, total: usize, rank: usize) -> Shard {
        let runs = self
            .plan
            .runs(total, rank / self.plan.ulysses, rank % self.plan.ulysses);
        runs[0]
    }
}
