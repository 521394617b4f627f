//! What the ranks of a call tell each other of the steps that another call finished.

use xdit_comm::{Call, Op, Spec};
use xdit_kernels::{DType, Tensor};

use crate::error::Result;
use crate::ranks::checkpoint::{Checkpoint, KeptImage};
use crate::ranks::compose::RankContext;
use crate::schedulers::Scheduler;

/// The tensors that finished steps leave of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptSpecs<'a> {
    scheduler: &'a dyn Scheduler,
    spec: Spec,
}

impl<'a> KeptSpecs<'a> {
    /// Of images of so many tokens and channels.
    pub(crate) fn new(scheduler: &'a dyn Scheduler, tokens: usize, channels: usize) -> Self {
        Self {
            scheduler,
            spec: Spec::new([1, tokens, channels], DType::F32),
        }
    }

    /// Returns the number of tensors after `finished` steps. After the last step, the scheduler remembers nothing more.
    fn count(&self, finished: usize) -> usize {
        match finished < self.scheduler.timesteps().len() {
            true => 1 + self.scheduler.history_len(finished),
            false => 1,
        }
    }
}

/// Prepares a call that continues after the finished steps of `checkpoint`. Then all processes have the newest steps that any of them
/// knows. Returns whether all of them have the encoded prompts.
///
/// # Collective
/// Every rank of the world calls it at the beginning of a call.
pub(crate) fn continued(
    checkpoint: &Checkpoint,
    member: Option<&RankContext>,
    kept: &KeptSpecs<'_>,
) -> Result<bool> {
    let has_embeds = checkpoint.embeds().is_some();
    let Some((world, member)) = member.and_then(|member| Some((member.world()?, member))) else {
        return Ok(has_embeds);
    };
    let own = checkpoint.finished_each();
    let mut message = vec![u8::from(has_embeds)];
    message.extend(
        own.iter()
            .flat_map(|finished| (*finished as u64).to_le_bytes()),
    );
    let told = world.control().all_gather(&message)?;
    let each: Vec<Vec<usize>> = told.iter().map(|told| numbers(told)).collect();
    let (mut batch, mut received) = (Vec::new(), Vec::new());
    for index in 0..own.len() {
        let of_ranks = || {
            each.iter()
                .map(|each| each.get(index).copied().unwrap_or(0))
        };
        let newest = of_ranks().max().unwrap_or(0);
        if of_ranks().all(|finished| finished == newest) {
            continue;
        }
        // Some rank has the newest steps.
        let root = of_ranks().position(|finished| finished == newest);
        let root = root.unwrap_or_default();
        let image = (world.rank() == root).then(|| checkpoint.image(index));
        let image = image.flatten();
        let gives = image.map(|image| [vec![image.latents_blc], image.history].concat());
        let mut gives = gives.unwrap_or_default().into_iter();
        let count = kept.count(newest);
        for _ in 0..count {
            let given = gives.next();
            let given = given.map(|tensor| tensor.to_device(member.device()));
            batch.push(Call {
                op: Op::Broadcast { root },
                gives: given.transpose()?.into_iter().collect(),
                expects: vec![kept.spec],
            });
        }
        received.push((index, newest, count));
    }
    if !batch.is_empty() {
        let mut tensors = world.start(batch)?.wait()?.into_iter();
        for (index, finished, count) in received {
            let of_image: Vec<Tensor> = tensors.by_ref().take(count).collect();
            if let Some((latents_blc, history)) = of_image.split_first() {
                checkpoint.keep_image(index, KeptImage::on_host(finished, latents_blc, history)?);
            }
        }
    }
    Ok(told.iter().all(|told| told.first() == Some(&1)))
}

fn numbers(told: &[u8]) -> Vec<usize> {
    let numbers = told.get(1..).unwrap_or_default().as_chunks::<8>().0;
    let numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
    numbers.map(|n| usize::try_from(n).unwrap_or(0)).collect()
}
