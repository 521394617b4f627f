//! Keeps what each finished step leaves, on every process of a replica.

use std::collections::VecDeque;

use xdit_comm::{Call, Group, Op, Pending, Shard, Spec};
use xdit_kernels::{DType, Tensor};

use crate::error::Result;
use crate::ranks::checkpoint::Checkpoint;

/// Puts the latents of finished steps into a checkpoint. Where stages are processes, the stage that steps latents sends them to the
/// others, each rank to those with the same rows.
///
/// A stage looks at what it receives one step later. The latents are there by then, so no stage waits for another one because of
/// them. If the stage that steps latents is lost as a whole, its last step may be lost with it.
#[derive(Debug)]
pub(crate) struct Keeping {
    checkpoint: Checkpoint,
    /// The images of the replica.
    images: Shard,
    /// Latents of all of them, or a part of what the scheduler remembers.
    spec: Spec,
    /// The ranks with the same rows on all stages, and the one among them that steps latents.
    stages: Option<(Group, usize)>,
    /// For each exchange that has begun: the number of steps that it is about.
    under_way: VecDeque<(usize, Pending)>,
}

impl Keeping {
    /// `shape` is that of the latents of `images`. `stages` are the processes with the same rows, and the index of the sender.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        images: Shard,
        shape: [usize; 3],
        stages: Option<(Group, usize)>,
    ) -> Self {
        Self {
            checkpoint: checkpoint.clone(),
            images,
            spec: Spec::new(shape, DType::F32),
            stages,
            under_way: VecDeque::new(),
        }
    }

    /// Keeps whole latents after `finished` steps, with what the scheduler remembers, and sends them to the other stages.
    pub(crate) fn made(
        &mut self,
        finished: usize,
        latents_blc: &Tensor,
        history: &[Tensor],
    ) -> Result<()> {
        self.checkpoint
            .keep(self.images, finished, latents_blc, history)?;
        let sent = std::iter::once(latents_blc).chain(history);
        self.exchange(finished, sent.cloned().collect(), 1 + history.len())
    }

    /// Begins to receive the same on another stage, where the scheduler remembers `history` tensors.
    pub(crate) fn awaited(&mut self, finished: usize, history: usize) -> Result<()> {
        self.exchange(finished, Vec::new(), 1 + history)
    }

    fn exchange(&mut self, finished: usize, sent: Vec<Tensor>, count: usize) -> Result<()> {
        self.collect(1)?;
        let Some((group, root)) = &self.stages else {
            return Ok(());
        };
        let mut sent = sent.into_iter();
        let batch = (0..count).map(|_| Call {
            op: Op::Broadcast { root: *root },
            gives: sent.next().into_iter().collect(),
            expects: vec![self.spec],
        });
        let begun = group.start(batch.collect())?;
        self.under_way.push_back((finished, begun));
        Ok(())
    }

    /// Keeps what has been received, except the newest `left` exchanges.
    fn collect(&mut self, left: usize) -> Result<()> {
        while self.under_way.len() > left {
            let Some((finished, begun)) = self.under_way.pop_front() else {
                break;
            };
            let received = begun.wait()?;
            if let Some((latents_blc, history)) = received.split_first() {
                self.checkpoint
                    .keep(self.images, finished, latents_blc, history)?;
            }
        }
        Ok(())
    }

    /// Ends with the latents after the last step, which every rank has.
    pub(crate) fn end(mut self, steps: usize, latents_blc: &Tensor) -> Result<()> {
        self.collect(0)?;
        self.checkpoint.keep(self.images, steps, latents_blc, &[])
    }
}
