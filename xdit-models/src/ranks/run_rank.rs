//! The work of one rank in a call: it denoises the images of its replica and, if required, decodes them.

use xdit_comm::Stats;
use xdit_kernels::{Event, Tensor};
use xdit_pipefusion::Report;

use super::replica::Replica;
use crate::error::Result;
use crate::models::dit::Dit;
use crate::observer::Observer;
use crate::pipeline::rank_plan::RankMemory;
use crate::ranks::compose::RankContext;

/// Which ranks decode a replica's images.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DecodeOn {
    FirstRank,
    AllRanks,
}

/// The result of one rank.
pub(crate) struct RankOutput {
    /// Whether this is the first rank of its replica.
    pub(crate) leads: bool,
    /// Happens when the queue of the rank has made its tensors.
    pub(crate) done: Event,
    /// For each batch of images: the final latents of those of its replica.
    pub(crate) latents: Vec<Option<Tensor>>,
    /// For each batch: the images of its replica, on the first rank of the replica.
    pub(crate) float: Vec<Option<Tensor>>,
    pub(crate) stats: Option<Stats>,
    /// Of the last batch in which its replica had images, as the report.
    pub(crate) memory: Option<RankMemory>,
    pub(crate) report: Option<Report>,
}

/// Denoises and decodes the images of this rank's replica together with the replica's other ranks, batch after batch. `batches` are
/// all replicas of each batch. A replica without images does nothing.
pub(crate) fn run_rank<D: Dit>(
    batches: &[Vec<Replica<D>>],
    rank_context: &RankContext,
    decode: Option<DecodeOn>,
    observer: &mut dyn Observer,
) -> Result<RankOutput> {
    let (mut latents, mut float, mut memory, mut report) = (vec![], vec![], None, None);
    for replicas in batches {
        let replica = &replicas[rank_context.replica()];
        let drawing = replicas.iter().filter(|replica| replica.draws()).count();
        let deciders = match replica.call.partition.max_drift {
            Some(_) => rank_context.deciders(drawing)?,
            None => None,
        };
        if !replica.draws() {
            latents.push(None);
            float.push(None);
            continue;
        }
        let done = replica.denoise(rank_context, deciders, observer)?;
        let latents_blc = done.latents_blc;
        (memory, report) = (Some(done.memory), Some(done.report));
        float.push(match decode {
            Some(DecodeOn::AllRanks) => {
                replica.decode(&latents_blc, rank_context, true, observer)?
            }
            Some(DecodeOn::FirstRank) if rank_context.leads() => {
                replica.decode(&latents_blc, rank_context, false, observer)?
            }
            _ => None,
        });
        latents.push(Some(latents_blc));
    }
    Ok(RankOutput {
        leads: rank_context.leads(),
        done: rank_context.device().record(),
        latents,
        float,
        stats: rank_context.stats(),
        memory,
        report,
    })
}
