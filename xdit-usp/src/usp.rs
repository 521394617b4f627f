//! Ulysses around Ring, with the division of streams into rows.

use crate::{Error, RING, Result, Ring, SequencePlan, ShardOrder, ULYSSES, Ulysses, plan};
use std::fmt;
use xdit_comm::DeviceMesh;
use xdit_kernels::{
    Tensor, View,
    attention::{Attention, AttnInput, AttnOut, Segment},
};

/// Returns Ulysses around Ring around `inner`, over the axes [`ULYSSES`] and [`RING`] of a mesh.
///
/// # Errors
/// If the mesh does not have these axes.
pub fn usp<A: Attention>(
    mesh: &DeviceMesh,
    order: ShardOrder,
    inner: A,
) -> Result<Ulysses<Ring<A>>> {
    let plan = plan(mesh, order)?;
    let ring = Ring::new(mesh.group(RING)?.clone(), plan, inner)?;
    Ulysses::new(mesh.group(ULYSSES)?.clone(), plan, mesh.coord(RING)?, ring)
}

/// [`usp`] for streams of given lengths. [`shard`](Self::shard) returns this rank's rows of a tensor, and
/// [`segments`](Self::segments) describes these rows to attention, so both always follow the same plan.
///
/// # Collective
/// Every rank of the mesh creates one with the same streams and makes the same number of calls of `attend`.
pub struct Usp<A> {
    plan: SequencePlan,
    streams: Vec<usize>,
    ring_rank: usize,
    ulysses_rank: usize,
    attention: Ulysses<Ring<A>>,
}

impl<A> fmt::Debug for Usp<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Usp over {:?}, streams of {:?}", self.plan, self.streams)
    }
}

impl<A: Attention> Usp<A> {
    /// Creates attention over streams with these numbers of rows. The streams follow each other in every tensor.
    ///
    /// # Errors
    /// If the mesh has no axes [`ULYSSES`] and [`RING`].
    pub fn new(mesh: &DeviceMesh, order: ShardOrder, streams: &[usize], inner: A) -> Result<Self> {
        Ok(Self {
            plan: plan(mesh, order)?,
            streams: streams.to_vec(),
            ring_rank: mesh.coord(RING)?,
            ulysses_rank: mesh.coord(ULYSSES)?,
            attention: usp(mesh, order, inner)?,
        })
    }

    /// Returns the plan that divides the rows.
    pub fn plan(&self) -> SequencePlan {
        self.plan
    }

    /// Returns this rank's rows of `whole`, whose dim 1 holds all rows of all streams: of queries, keys, values or rotary tables.
    ///
    /// # Shapes
    /// `[b, Σ streams, …]` to `[b, this rank's rows, …]`.
    ///
    /// # Errors
    /// [`Error::Plan`] if dim 1 has another length.
    pub fn shard<'a>(&self, whole: impl Into<View<'a>>) -> Result<Tensor> {
        let whole = whole.into();
        let rows = self
            .streams
            .iter()
            .try_fold(0usize, |sum, &rows| sum.checked_add(rows));
        if whole.ndim() < 2 || rows != Some(whole.dim(1)) {
            let expected = format!("[b, l, …] with the rows of streams {:?}", self.streams);
            return Err(Error::plan("shard", expected, whole.shape()));
        }
        let (mut parts, mut start) = (Vec::new(), 0);
        for &total in &self.streams {
            for run in self.plan.runs(total, self.ring_rank, self.ulysses_rank) {
                parts.push(whole.narrow(1, start + run.start, run.len)?);
            }
            start += total;
        }
        Ok(Tensor::cat(&parts, 1)?)
    }

    /// Returns the rows of each stream that this rank holds, for [`AttnInput::segments`].
    pub fn segments(&self) -> Vec<Segment> {
        self.plan
            .segments(&self.streams, self.ring_rank, self.ulysses_rank)
    }
}

impl<A: Attention> Attention for Usp<A> {
    fn attend(&mut self, input: &AttnInput<'_>) -> xdit_kernels::Result<AttnOut> {
        self.attention.attend(input)
    }

    fn progress(&mut self) -> xdit_kernels::Result<()> {
        self.attention.progress()
    }
}
