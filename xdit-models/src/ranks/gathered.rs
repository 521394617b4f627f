//! What the ranks of a group of processes have made, brought together at the end of a call: the images and latents of all replicas
//! on the first rank of the first replica, and what each rank has measured on all ranks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xdit_comm::{Call, Control, Op, OpStats, Shard, Spec, Stats};
use xdit_kernels::Tensor;
use xdit_pipefusion::Report;

use crate::error::{Error, Result};
use crate::pipeline::rank_plan::RankMemory;
use crate::ranks::axes;
use crate::ranks::compose::RankContext;
use crate::ranks::run_rank::RankOutput;

/// What a rank has measured, in a form that travels.
#[derive(Debug, Deserialize, Serialize)]
struct TravellingReport {
    leads: bool,
    stats: Vec<TravellingTotal>,
    /// Bytes of parameters, of keys and values, and of those of the text.
    memory: Option<[u64; 3]>,
    report: Option<TravellingDrift>,
}

/// The total of an operation on an axis.
#[derive(Debug, Deserialize, Serialize)]
struct TravellingTotal {
    operation: String,
    axis: Option<String>,
    calls: usize,
    bytes: usize,
    copied: usize,
    waited: Duration,
}

/// A [`Report`].
#[derive(Debug, Deserialize, Serialize)]
struct TravellingDrift {
    /// The bits of the drift of each step: JSON has no infinity.
    drift: Vec<Option<u32>>,
    whole: Vec<usize>,
    refreshed: Vec<usize>,
}

impl TravellingReport {
    fn of(output: &RankOutput, stats: Stats) -> Self {
        let stats = stats
            .into_iter()
            .map(|((operation, axis), total)| TravellingTotal {
                operation: operation.to_owned(),
                axis: axis.map(|axis| axis.name().to_owned()),
                calls: total.calls,
                bytes: total.bytes,
                copied: total.copied,
                waited: total.waited,
            });
        let report = output.report.as_ref().map(|report| TravellingDrift {
            drift: report.drift.iter().map(|it| it.map(f32::to_bits)).collect(),
            whole: report.whole.clone(),
            refreshed: report.refreshed.clone(),
        });
        let memory = output.memory.map(|memory| {
            [
                memory.parameter_bytes,
                memory.kv_bytes,
                memory.text_kv_bytes,
            ]
        });
        Self {
            leads: output.leads,
            stats: stats.collect(),
            memory,
            report,
        }
    }

    /// Returns the output of that rank, without its tensors. `own` is that of this rank.
    fn into_output(self, own: &RankOutput) -> RankOutput {
        let stats = self.stats.into_iter().filter_map(|total| {
            let axis = match total.axis {
                Some(name) => Some(axes::named(&name)?),
                None => None,
            };
            let key = (operation(&total.operation)?, axis);
            let total = OpStats {
                calls: total.calls,
                bytes: total.bytes,
                copied: total.copied,
                waited: total.waited,
            };
            Some((key, total))
        });
        let report = self.report.map(|travelled| {
            let mut report = Report::default();
            let drift = travelled.drift.into_iter();
            report.drift = drift.map(|it| it.map(f32::from_bits)).collect();
            report.whole = travelled.whole;
            report.refreshed = travelled.refreshed;
            report
        });
        let memory = self.memory.map(|[parameters, kept, text]| RankMemory {
            parameter_bytes: parameters,
            kv_bytes: kept,
            text_kv_bytes: text,
        });
        RankOutput {
            leads: self.leads,
            done: own.done.clone(),
            latents: vec![None; own.latents.len()],
            float: vec![None; own.float.len()],
            stats: Some(stats.collect()),
            memory,
            report,
        }
    }
}

/// The name of an operation, as statistics have it.
fn operation(name: &str) -> Option<&'static str> {
    match name == Control::OP {
        true => Some(Control::OP),
        false => Op::named(name).map(Op::name),
    }
}

/// Returns the outputs of all ranks, in rank order. The tensors of other replicas than its own has only the first rank of the first
/// replica. `batches` are the numbers of images of the batches.
///
/// # Collective
/// Every rank of the group calls it.
pub(crate) fn gathered(
    rank_context: &RankContext,
    own: RankOutput,
    batches: &[usize],
) -> Result<Vec<RankOutput>> {
    let arrived = rank_context.tensors_of_replicas(&own, batches)?;
    let Some(stats) = rank_context.stats() else {
        return Ok(vec![own]);
    };
    let measured = serde_json::to_vec(&TravellingReport::of(&own, stats)).map_err(Error::other)?;
    let mut outputs = Vec::new();
    for bytes in rank_context.gather_bytes(&measured)? {
        let measured: TravellingReport = serde_json::from_slice(&bytes).map_err(Error::other)?;
        outputs.push(measured.into_output(&own));
    }
    // All ranks of a replica have its latents. They count as those of its first rank.
    let leader = match rank_context.leaders() {
        Some((_, leaders)) => leaders[rank_context.replica()],
        None => 0,
    };
    (outputs[leader].latents, outputs[leader].float) = (own.latents, own.float);
    for (leader, latents, float) in arrived {
        outputs[leader].done = rank_context.device().record();
        (outputs[leader].latents, outputs[leader].float) = (latents, float);
    }
    Ok(outputs)
}

/// A rank, and latents and images of its replica in each batch.
type OfReplica = (usize, Vec<Option<Tensor>>, Vec<Option<Tensor>>);

impl RankContext {
    /// Sends the tensors of this rank's replica to the first rank of the first replica, if this rank leads another one. Returns
    /// there what has arrived.
    fn tensors_of_replicas(&self, own: &RankOutput, batches: &[usize]) -> Result<Vec<OfReplica>> {
        let (world, leaders) = match self.leaders() {
            Some((world, leaders)) if leaders.len() > 1 && self.leads() => (world, leaders),
            _ => return Ok(Vec::new()),
        };
        let of_batches = || own.latents.iter().zip(&own.float);
        if self.replica() > 0 {
            let sent = of_batches().flat_map(|(latents, float)| [latents, float]);
            let sent = sent.flatten().map(|tensor| Call::send(tensor, leaders[0]));
            world.start(sent.collect())?.wait()?;
            return Ok(Vec::new());
        }
        // All replicas have the same tensors, of their images each.
        let mut batch = Vec::new();
        let count = |images: usize, replica| Shard::of(images, leaders.len(), replica).len;
        for (replica, leader) in leaders.iter().enumerate().skip(1) {
            for (images, (latents, float)) in batches.iter().zip(of_batches()) {
                let count = count(*images, replica);
                for tensor in [latents, float].into_iter().flatten().filter(|_| count > 0) {
                    let mut shape = tensor.shape().to_vec();
                    shape[0] = count;
                    let spec = Spec::new(&shape[..], tensor.dtype());
                    batch.push(Call::recv(spec, *leader));
                }
            }
        }
        let mut arrived = world.start(batch)?.wait()?.into_iter();
        let mut next = |is_there: bool| if is_there { arrived.next() } else { None };
        let mut all = Vec::new();
        for (replica, leader) in leaders.iter().enumerate().skip(1) {
            let of_replica = batches.iter().zip(of_batches()).map(|(images, own)| {
                let has_images = count(*images, replica) > 0;
                let latents = next(has_images && own.0.is_some());
                (latents, next(has_images && own.1.is_some()))
            });
            let (latents, float) = of_replica.unzip();
            all.push((*leader, latents, float));
        }
        Ok(all)
    }
}
