//! The encoded prompts of a call: encoded here, sent by another rank, or known from a checkpoint.

use xdit_comm::Spec;
use xdit_kernels::{Device, Tensor};

use crate::error::Result;
use crate::ranks::checkpoint::Checkpoint;
use crate::ranks::compose::RankContext;

/// Encoded prompts that ranks send each other.
pub(crate) trait EmbedTensors: Sized {
    /// The number of tensors of a branch.
    const COUNT: usize;

    /// Returns all that they contain, as tensors.
    fn tensors(&self) -> Result<Vec<Tensor>>;

    /// Converts the tensors back. There are [`COUNT`](Self::COUNT).
    fn of_tensors(tensors: &[Tensor]) -> Result<Self>;
}

/// Where a call finds encoded prompts, besides its encoders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmbedsOf<'a> {
    /// This process's rank, if it is one of a group. The first rank of each replica encodes for the others.
    pub(crate) member: Option<&'a RankContext>,
    /// Keeps them, if someone keeps the finished steps.
    pub(crate) checkpoint: Option<&'a Checkpoint>,
    /// Whether the checkpoint of every rank has them already.
    pub(crate) known: bool,
    pub(crate) device: &'a Device,
}

impl EmbedsOf<'_> {
    /// Returns the prompts of each branch. `specs` are those of their tensors; `encode` is called where they must be encoded.
    ///
    /// # Collective
    /// Every rank of a replica calls it.
    pub(crate) fn get<E: EmbedTensors>(
        self,
        specs: impl FnOnce() -> Result<Vec<Spec>>,
        encode: impl FnOnce() -> Result<Vec<E>>,
    ) -> Result<Vec<E>> {
        let kept = self.checkpoint.filter(|_| self.known);
        if let Some(tensors) = kept.and_then(Checkpoint::embeds) {
            let here = tensors.iter().map(|tensor| tensor.to_device(self.device));
            return joined(&here.collect::<xdit_kernels::Result<Vec<_>>>()?);
        }
        let embeds = match self.member {
            None => encode()?,
            Some(member) => joined(&member.made_by_first(&specs()?, || tensors(&encode()?))?)?,
        };
        if let Some(checkpoint) = self.checkpoint {
            checkpoint.keep_embeds(&tensors(&embeds)?)?;
        }
        Ok(embeds)
    }
}

fn tensors<E: EmbedTensors>(embeds: &[E]) -> Result<Vec<Tensor>> {
    let tensors = embeds.iter().map(EmbedTensors::tensors);
    Ok(tensors.collect::<Result<Vec<_>>>()?.concat())
}

fn joined<E: EmbedTensors>(tensors: &[Tensor]) -> Result<Vec<E>> {
    tensors.chunks_exact(E::COUNT).map(E::of_tensors).collect()
}
