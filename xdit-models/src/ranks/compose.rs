//! Combines all strategies: how several ranks draw one image together. Only this file names every strategy.
//!
//! A [`RankContext`] describes the other ranks to one rank. Models do not see it: they receive this rank's attention, rows and
//! positions, and return this rank's rows.

mod bands;
mod groups;
mod layout;
mod member;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use xdit_cfg::{Guidance, RescaleSums};
use xdit_comm::{Axis, DeviceMesh, Group, OpStats, Spec, Stats};
use xdit_kernels::attention::Attention;
use xdit_kernels::{Device, Tensor, View};
use xdit_pipefusion::{Driver, Kept, PatchPlan, Placement, Schedule, StaleKv};
use xdit_usp::{Ring, SequencePlan, ShardOrder, Ulysses, usp};

use crate::cancel::CancelToken;
use crate::error::Result;
use crate::layers::{Progress, Told};
use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use crate::vae::{VaeDecoder, Whole};

pub(crate) use layout::StreamLayout;

/// One of the ranks that draw images together. A clone is the same rank.
#[derive(Clone, Debug)]
pub(crate) struct RankContext {
    /// `None` for a rank that is alone.
    ranks: Option<Arc<Joined>>,
    /// The queue on which this rank computes.
    device: Device,
    /// The statistics of this rank before the call.
    before: Stats,
    /// Through which this rank reports progress. Its clones share the events of the GPU.
    progress: Progress,
    /// The token of the call.
    cancel: CancelToken,
}

#[derive(Debug)]
struct Joined {
    mesh: DeviceMesh,
    degrees: Degrees,
    /// The stages of this rank's rows.
    pipe: Group,
    /// The ranks of one replica. They have the same coordinate on the data axis and draw the same images. The first one is on
    /// the stage where the model ends and latents are stepped. It reports for the replica.
    replica: Group,
    /// The ranks of one stage of one branch, in the order ulysses + U · ring. Each holds some rows.
    sequence: Group,
    plan: SequencePlan,
    placement: Placement,
    /// The ranks that decide together, by the number of replicas that draw. A group is split once and kept for later calls.
    deciders: Mutex<BTreeMap<usize, Group>>,
    /// The ranks of `pipe` once more, for messages beside those of the pipeline. Split by the first call that needs it.
    beside_pipe: OnceLock<Group>,
}

impl RankContext {
    /// Creates a rank that works alone on this device, in a call with this token.
    pub(crate) fn alone(device: &Device, cancel: CancelToken) -> Self {
        Self {
            ranks: None,
            device: device.clone(),
            before: Stats::new(),
            progress: Progress::new(None, device, &cancel),
            cancel,
        }
    }

    /// Creates this rank's context on a mesh over `world`. It computes on the device of that group, or on `device` where the
    /// group does not know one.
    ///
    /// # Collective
    /// Every rank of the world calls it with the same degrees and placement.
    pub(crate) fn join(
        world: &Group,
        degrees: Degrees,
        placement: Placement,
        device: &Device,
    ) -> Result<Self> {
        let mesh = DeviceMesh::new(world, degrees.shape())?;
        let rows = degrees.ring * degrees.ulysses;
        let place = degrees.place_in_replica(world.rank(), placement);
        let replica = world.split(mesh.coord(axes::DATA)?, place)?;
        let number = degrees.in_usual_order(world.rank());
        let sequence = world.split(number / rows, number % rows)?;
        let plan = xdit_usp::plan(&mesh, ShardOrder::Contiguous)?;
        let device = world.device().unwrap_or(device);
        Ok(Self {
            ranks: Some(Arc::new(Joined {
                pipe: mesh.group(axes::PIPE)?.clone(),
                mesh,
                degrees,
                replica,
                sequence,
                plan,
                placement,
                deciders: Mutex::default(),
                beside_pipe: OnceLock::new(),
            })),
            progress: Progress::new(Some(world), device, &CancelToken::NEVER),
            device: device.clone(),
            before: Stats::new(),
            cancel: CancelToken::NEVER,
        })
    }

    /// Returns the same rank at the beginning of a call with this token. Its statistics count from now on.
    pub(crate) fn for_a_call(&self, cancel: CancelToken) -> Self {
        let ranks = self.ranks.clone();
        let sent = ranks.as_ref().map(|ranks| ranks.mesh.world().stats());
        Self {
            before: sent.unwrap_or_default(),
            progress: Progress::new(
                ranks.as_ref().map(|ranks| ranks.mesh.world()),
                &self.device,
                &cancel,
            ),
            ranks,
            device: self.device.clone(),
            cancel,
        }
    }

    /// Returns the group of all ranks, if there are several.
    pub(crate) fn world(&self) -> Option<&Group> {
        self.ranks.as_ref().map(|ranks| ranks.mesh.world())
    }

    /// Returns the queue on which this rank computes.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the index of this rank's replica.
    pub(crate) fn replica(&self) -> usize {
        self.coord(axes::DATA)
    }

    /// Returns the index of this rank's stage.
    pub(crate) fn stage(&self) -> usize {
        self.coord(axes::PIPE)
    }

    /// Returns this rank's index among the ranks that divide the branches of guidance.
    pub(crate) fn branch(&self) -> usize {
        self.coord(axes::CFG)
    }

    fn coord(&self, axis: Axis) -> usize {
        self.ranks.as_ref().map_or(0, |ranks| {
            ranks.degrees.coord(ranks.mesh.world().rank(), axis)
        })
    }

    /// Returns whether this rank is the first of its replica, which reports for it.
    pub(crate) fn leads(&self) -> bool {
        self.ranks
            .as_ref()
            .is_none_or(|ranks| ranks.replica.rank() == 0)
    }

    /// Returns whether several ranks draw each image together.
    pub(crate) fn shares_pictures(&self) -> bool {
        self.ranks
            .as_ref()
            .is_some_and(|ranks| ranks.replica.world_size() > 1)
    }

    /// Returns the value through which this rank reports progress.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reports that this rank has finished an operation. An error if another rank has failed or the call is cancelled.
    pub(crate) fn note(&self) -> Result<()> {
        self.progress.note()
    }

    /// Waits for this rank's GPU before the rank reads what it computed, and reports progress meanwhile.
    pub(crate) fn settle(&self) -> Result<()> {
        self.progress.settle()
    }

    /// Returns an observer that observes nothing and has the token of the call.
    pub(crate) fn silent(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Returns the statistics of this rank in this call.
    pub(crate) fn stats(&self) -> Option<Stats> {
        let ranks = self.ranks.as_ref()?;
        let sent = ranks.mesh.world().stats().into_iter();
        let in_this_call = sent.map(|(operation, total)| {
            let before = self.before.get(&operation).copied().unwrap_or_default();
            (operation, total.since(before))
        });
        let some = |total: &OpStats| *total != OpStats::default();
        Some(in_this_call.filter(|(_, total)| some(total)).collect())
    }

    /// Returns for each wish whether it is true on any rank of the replica.
    ///
    /// # Collective
    /// Every rank of a replica calls it.
    pub(crate) fn any(&self, wishes: [bool; 2]) -> Result<[bool; 2]> {
        let Some(ranks) = self.ranks.as_ref().filter(|_| self.shares_pictures()) else {
            return Ok(wishes);
        };
        Ok(ranks.replica.control().any(wishes)?)
    }

    /// Returns attention over whole streams of which this rank holds some rows: the strategies around the kernel. With `kept`,
    /// patches attend to kept keys and values of other patches.
    pub(crate) fn attention(&self, kept: Option<&Kept>) -> Result<Box<dyn Attention>> {
        let told = Told(self.progress());
        Ok(match (&self.ranks, kept) {
            (None, None) => Box::new(told),
            (None, Some(kept)) => Box::new(StaleKv::new(told, kept.clone(), ALWAYS_FRESH)),
            (Some(ranks), None) => Box::new(usp(&ranks.mesh, ShardOrder::Contiguous, told)?),
            (Some(ranks), Some(kept)) => {
                let ring = Ring::new(ranks.mesh.group(axes::RING)?.clone(), ranks.plan, told)?;
                Box::new(Ulysses::new(
                    ranks.mesh.group(axes::ULYSSES)?.clone(),
                    ranks.plan,
                    ranks.mesh.coord(axes::RING)?,
                    StaleKv::new(ring, kept.clone(), ALWAYS_FRESH),
                )?)
            }
        })
    }

    /// Returns guidance over the ranks that have a branch each, or over this one rank with all branches.
    pub(crate) fn guidance(&self) -> Result<Guidance> {
        let pair = self.ranks.as_ref().map(|ranks| ranks.mesh.group(axes::CFG));
        Ok(Guidance::new(pair.transpose()?.cloned())?)
    }

    /// Reduces sums over the rows of all ranks of a stage of a branch.
    ///
    /// # Collective
    /// Every rank of a stage calls it.
    pub(crate) fn over_rows(&self, sums: RescaleSums) -> Result<RescaleSums> {
        Ok(match &self.ranks {
            Some(ranks) if ranks.sequence.world_size() > 1 => sums.all_reduced(&ranks.sequence)?,
            _ => sums,
        })
    }

    /// Returns the denoising loop over this rank's replica. The ranks of `deciders` decide together about `max_drift`; without
    /// them, the replica does.
    pub(crate) fn driver(
        &self,
        schedule: Schedule,
        max_drift: Option<f32>,
        kept: &Kept,
        deciders: Option<Group>,
    ) -> Driver {
        let ranks = self.ranks.as_ref();
        Driver {
            schedule,
            pipe: ranks.map(|ranks| ranks.pipe.clone()),
            placement: ranks.map_or(Placement::Linear, |ranks| ranks.placement),
            replica: deciders.or_else(|| ranks.map(|ranks| ranks.replica.clone())),
            max_drift,
            kept: kept.clone(),
            first_step: 0,
        }
    }

    /// Returns the rows that this rank holds of a text of `text_len` tokens and of each patch.
    pub(crate) fn layout(&self, text_len: usize, patches: PatchPlan) -> StreamLayout {
        let plan = self.ranks.as_ref().map(|ranks| ranks.plan);
        let rank = self.ranks.as_ref().map_or(0, |ranks| ranks.sequence.rank());
        StreamLayout::new(plan, rank, text_len, patches)
    }

    /// Gathers the whole `[b, image tokens, ..]` on every rank of a stage, from each rank's rows of every patch.
    ///
    /// # Collective
    /// Every rank of a stage calls it.
    pub(crate) fn gather(&self, layout: &StreamLayout, patches: &[Tensor]) -> Result<Tensor> {
        let views: Vec<View<'_>> = patches.iter().map(Tensor::view).collect();
        let rows = match patches {
            [one] => one.clone(),
            _ => Tensor::cat(&views, 1)?,
        };
        let Some(ranks) = self
            .ranks
            .as_ref()
            .filter(|ranks| ranks.sequence.world_size() > 1)
        else {
            return Ok(rows);
        };
        let expected: Vec<Spec> = (0..ranks.sequence.world_size())
            .map(|rank| {
                let mut shape = rows.shape().to_vec();
                shape[1] = layout.image_rows_of(rank);
                Spec::new(shape.as_slice(), rows.dtype())
            })
            .collect();
        let parts = ranks.sequence.all_gather(&rows, &expected)?;
        layout.assemble(&parts)
    }

    /// Sends a tensor from the stage where the model ends to all stages.
    ///
    /// # Collective
    /// Every rank of a replica calls it. The ranks of that stage pass the tensor. All ranks know its spec.
    pub(crate) fn spread_from_end(&self, made: Option<Tensor>, spec: Spec) -> Result<Tensor> {
        let placement = self.ranks.as_ref().map(|ranks| ranks.placement);
        let pipe = self.ranks.as_ref().map(|ranks| &ranks.pipe);
        match (pipe.filter(|pipe| pipe.world_size() > 1), made) {
            (None, Some(made)) => Ok(made),
            (None, None) => Err(xdit_kernels::Error::shape(
                "stages",
                "the end of the model",
                format_args!("none"),
            )
            .into()),
            (Some(pipe), made) => {
                let end = placement.unwrap_or_default().end(pipe.world_size());
                Ok(pipe.broadcast(made.as_ref(), spec, end)?)
            }
        }
    }
}

/// The number of streams that come first in every step: text and the first patch.
const ALWAYS_FRESH: usize = 2;

impl RankContext {
    /// Decodes latents `[b, h, w, c]`, with one band of rows on each rank. Returns the images on the first rank of the replica.
    ///
    /// # Collective
    /// Every rank of a replica calls it with the same latents.
    pub(crate) fn decode(
        &self,
        decoder: &VaeDecoder,
        latents_bhwc: &Tensor,
    ) -> Result<Option<Tensor>> {
        match &self.ranks {
            None => decoder
                .forward_band(latents_bhwc, &Whole(self.progress()), &mut self.silent())
                .map(Some),
            Some(ranks) => {
                decoder.decode_over(latents_bhwc, &ranks.replica, self.progress(), &self.cancel)
            }
        }
    }
}
