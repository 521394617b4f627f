//! Divides a checked call over time and stages.

use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use xdit_cfg::Branch;
use xdit_comm::Shard;
use xdit_kernels::DType;
use xdit_pipefusion::{Part, PatchPlan, Placement, Schedule, StagePlan, StepTraffic};

use crate::error::{Error, Result};
use crate::models::dit::DitShape;
use crate::pipeline::rank_plan::{RankPlan, StageSummary};
use crate::pipeline::resolve::ResolvedRequest;
use crate::quote;
use crate::ranks::compose::StreamLayout;
use crate::ranks::parallel::{Parallel, StageSplit};

/// The patches, stages and steps of a call on ranks of these degrees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Partition {
    pub(crate) patches: PatchPlan,
    pub(crate) schedule: Schedule,
    pub(crate) stages: StagePlan,
    pub(crate) max_drift: Option<f32>,
    /// The warm-up that was asked for. `schedule` adds the steps before all branches have begun.
    warmup_steps: usize,
    over_processes: bool,
    degrees: Degrees,
    dtype: DType,
    /// The branches of guidance in the step that uses most of them.
    branches: &'static [Branch],
}

impl Partition {
    pub(crate) fn new(
        plan: &ResolvedRequest,
        parallel: &Parallel,
        shape: &dyn DitShape,
        dtype: DType,
    ) -> Result<Self> {
        let (options, degrees) = (&parallel.pipefusion, parallel.degrees);
        let placement = placement(options.placement, shape)?;
        let half = shape.block_count() / 2;
        if placement == Placement::Folded && degrees.pipe > half {
            return Err(too_many_folded(degrees.pipe, half));
        }
        let costs = |costs: Vec<f64>| match placement {
            Placement::Linear => StagePlan::balanced(&costs, degrees.pipe),
            // The cost of each block together with the one at the same distance from the end.
            Placement::Folded => {
                let half = costs.len() / 2;
                let outer = costs.iter().zip(costs.iter().rev()).take(half);
                let pairs: Vec<f64> = outer.map(|(a, b)| a + b).collect();
                StagePlan::balanced(&pairs, degrees.pipe).map(StagePlan::folded)
            }
        };
        let stages = match &options.stages {
            StageSplit::Blocks(counts) if counts.len() != degrees.pipe => {
                let numbers = quote::counted(degrees.pipe, "number");
                let allowed = format!("{numbers}, one for each stage");
                let given = quote::joined(counts, ",");
                return Err(Error::invalid("attn_layer_num_for_pp", given, allowed));
            }
            StageSplit::Blocks(counts) => explicit(counts, placement, shape.block_count())?,
            StageSplit::Flops => costs(flops(plan, shape))?,
            StageSplit::Memory => {
                let bytes = (0..shape.block_count()).map(|block| shape.block_bytes(block, dtype));
                costs(bytes.map(|bytes| bytes as f64).collect())?
            }
        };
        // A branch that begins later also starts with a whole step.
        let branches = plan.guide.branches(plan.steps);
        let wants = |step: usize| plan.guide.plan.scales(step, plan.steps).branches().len();
        let settled = (0..plan.steps).find(|step| wants(*step) == branches.len());
        let settled = settled.map_or(0, |step| step + 1);
        let [rows, columns] = plan.tokens;
        let patches = match options.patches {
            Some(count) => PatchPlan::new(rows, columns, count)?,
            None => PatchPlan::new(rows, columns, degrees.pipe).map_err(of_stages)?,
        };
        Ok(Self {
            patches,
            schedule: Schedule {
                steps: plan.steps,
                warmup_steps: options.warmup_steps.max(settled),
                patches: patches.count(),
            },
            stages,
            max_drift: options.max_drift,
            warmup_steps: options.warmup_steps,
            over_processes: parallel.processes() > 1,
            degrees,
            dtype,
            branches,
        })
    }

    /// Returns the schedule of a run whose steps before `first_step` are finished. No keys and values are kept then, so it warms up
    /// again.
    pub(crate) fn schedule_from(&self, first_step: usize) -> Schedule {
        let again = first_step.saturating_add(self.warmup_steps.max(1));
        match first_step {
            0 => self.schedule,
            _ => Schedule {
                warmup_steps: self.schedule.warmup_steps.max(again),
                ..self.schedule
            },
        }
    }

    /// Returns whether the ranks are processes.
    pub(crate) fn is_over_processes(&self) -> bool {
        self.over_processes
    }

    /// Returns the branches that one rank of the cfg axis computes.
    pub(crate) fn branches_of(&self, rank: usize) -> &'static [Branch] {
        Branch::of_rank(self.branches, self.degrees.cfg, rank)
    }

    /// Returns the largest number of branches of guidance in a step.
    pub(crate) fn branch_count(&self) -> usize {
        self.branches.len()
    }

    pub(crate) fn ranks(&self, plan: &ResolvedRequest, shape: &dyn DitShape) -> Vec<RankPlan> {
        (0..self.degrees.product().unwrap_or(0))
            .map(|rank| {
                let blocks = self.stages.blocks(self.degrees.coord(rank, axes::PIPE));
                let text_kv_bytes = self.text_kv_bytes(plan, shape, rank);
                let kept = self.kept_bytes(plan, shape, rank);
                RankPlan {
                    rank,
                    coordinates: axes::ALL.map(|axis| self.degrees.coord(rank, axis)),
                    device: None,
                    parameter_bytes: shape.stage_bytes(&blocks, self.dtype),
                    kv_bytes: kept.saturating_add(text_kv_bytes),
                    text_kv_bytes,
                }
            })
            .collect()
    }

    /// Every rank computes those of its blocks itself, for all heads and all images of its replica.
    fn text_kv_bytes(&self, plan: &ResolvedRequest, shape: &dyn DitShape, rank: usize) -> u64 {
        let [data, stage, cfg] =
            [axes::DATA, axes::PIPE, axes::CFG].map(|axis| self.degrees.coord(rank, axis));
        let factors = [
            self.stages.blocks(stage).len(),
            self.branches_of(cfg).len(),
            Shard::of(plan.images, self.degrees.data, data).len,
        ];
        let block = shape.text_kv_bytes(self.dtype);
        factors
            .iter()
            .fold(block, |bytes, n| bytes.saturating_mul(*n as u64))
    }

    fn kept_bytes(&self, plan: &ResolvedRequest, shape: &dyn DitShape, rank: usize) -> u64 {
        if !self.schedule.is_lossy() {
            return 0;
        }
        let [data, stage, ring, ulysses] = [axes::DATA, axes::PIPE, axes::RING, axes::ULYSSES]
            .map(|axis| self.degrees.coord(rank, axis));
        let text = shape.stream_text(plan.text_len);
        // After the all-to-all, a rank has its heads of the rows of its Ulysses group.
        let rows = |of: fn(&StreamLayout) -> usize| -> usize {
            (0..self.degrees.ulysses)
                .map(|u| ring * self.degrees.ulysses + u)
                .map(|rank| StreamLayout::of_rank(self.degrees, rank, text, self.patches))
                .map(|layout| of(&layout))
                .sum()
        };
        let (all, image) = (
            rows(StreamLayout::rows),
            rows(|l| l.image_rows(Part::Whole)),
        );
        let of_block = |block: usize| {
            let [joint, alone] = shape.attentions(block);
            joint * all + alone * image
        };
        let own = self.stages.blocks(stage);
        // For every branch, without the blocks that it leaves out.
        let tokens: usize = (self.branches_of(self.degrees.coord(rank, axes::CFG)).iter())
            .flat_map(|branch| {
                own.iter()
                    .filter(|block| !plan.guide.skips(*branch, *block))
            })
            .map(of_block)
            .sum();
        let [heads, head_dim] = shape.heads();
        let factors = [
            2,
            tokens,
            Shard::of(heads, self.degrees.ulysses, ulysses).len,
            head_dim,
            self.dtype.size(),
            Shard::of(plan.images, self.degrees.data, data).len,
        ];
        factors
            .iter()
            .fold(1, |bytes: u64, n| bytes.saturating_mul(*n as u64))
    }

    /// Returns the stages, in order.
    pub(crate) fn summaries(
        &self,
        plan: &ResolvedRequest,
        shape: &dyn DitShape,
    ) -> Vec<StageSummary> {
        let flops = flops(plan, shape);
        let total: f64 = flops.iter().sum();
        (0..self.stages.count())
            .map(|stage| {
                let blocks = self.stages.blocks(stage);
                StageSummary {
                    kinds: shape.kinds(&blocks),
                    flops_share: blocks.iter().map(|block| flops[block]).sum::<f64>() / total,
                    parameter_bytes: shape.stage_bytes(&blocks, self.dtype),
                    blocks,
                }
            })
            .collect()
    }

    /// Returns the messages between stages in each step, for all ranks of a stage of the replica with the most images.
    pub(crate) fn traffic(
        &self,
        step: usize,
        plan: &ResolvedRequest,
        shape: &dyn DitShape,
    ) -> StepTraffic {
        let images = plan.images.div_ceil(self.degrees.data);
        let scales = plan.guide.plan.scales(step, plan.steps);
        let branches = scales.branches().len();
        let mut traffic = StepTraffic::new(
            &self.schedule.parts(step),
            &self.patches,
            shape.stream_text(plan.text_len),
            images * branches * shape.hidden_size() * self.dtype.size(),
            images * shape.token_channels() * DType::F32.size(),
        );
        let ranks = self.degrees.ring * self.degrees.ulysses;
        traffic.forward.messages *= branches * ranks;
        // The ranks of each branch step the latents.
        traffic.back.messages *= self.degrees.cfg * ranks;
        traffic.back.bytes *= self.degrees.cfg;
        match self.stages.placement() {
            Placement::Folded => traffic.folded(),
            Placement::Linear => {
                let stage_of = |block| self.stages.stage_of(block);
                let crosses = |block: &usize| {
                    let reader = shape.reader(*block);
                    reader.is_some_and(|reader| stage_of(reader) != stage_of(*block))
                };
                traffic.with_skips((0..shape.block_count()).filter(crosses).count())
            }
        }
    }
}

/// Returns the requested placement, or the default of the model.
fn placement(asked: Option<Placement>, shape: &dyn DitShape) -> Result<Placement> {
    let u_shaped = (0..shape.block_count()).any(|block| shape.reader(block).is_some());
    match (asked, u_shaped) {
        (Some(Placement::Folded), false) => Err(Error::invalid(
            "pipefusion_placement",
            "folded",
            "linear: no block of this model reads the output of an earlier one again",
        )),
        (Some(placement), _) => Ok(placement),
        (None, true) => Ok(Placement::Folded),
        (None, false) => Ok(Placement::Linear),
    }
}

/// Describes the possible folded stages, and the alternative with more stages.
fn too_many_folded(stages: usize, half: usize) -> Error {
    let allowed = format!(
        "from 1 to {half} where the pipeline is folded, half the blocks of the model; with \
         `pipefusion_placement` linear up to {}",
        2 * half
    );
    Error::invalid("pipefusion_parallel_degree", stages, allowed)
}

/// Creates stages with these numbers of blocks. In a folded pipeline, half of the blocks come from each end of the model.
fn explicit(counts: &[usize], placement: Placement, blocks: usize) -> Result<StagePlan> {
    if placement == Placement::Linear {
        return Ok(StagePlan::explicit(counts, blocks)?);
    }
    if counts.iter().any(|count| count % 2 > 0) {
        return Err(Error::invalid(
            "attn_layer_num_for_pp",
            quote::joined(counts, ","),
            "even numbers: in a folded pipeline half of a stage's blocks are from each end of the model",
        ));
    }
    let halves: Vec<usize> = counts.iter().map(|count| count / 2).collect();
    StagePlan::explicit(&halves, blocks / 2)
        .map(StagePlan::folded)
        .map_err(|_| {
            let allowed = format!("at least 2 each and {blocks} in all, the blocks of the model");
            Error::invalid("attn_layer_num_for_pp", quote::joined(counts, ","), allowed)
        })
}

/// Adds the origin of a number of patches that the caller did not set.
fn of_stages(error: xdit_pipefusion::Error) -> Error {
    match Error::from(error) {
        Error::InvalidRequest {
            argument,
            given,
            allowed,
        } => Error::invalid(argument, format!("{given}, as many as stages"), allowed),
        other => other,
    }
}

/// Returns the FLOPs of each block. The first and the last include those of the model's ends.
fn flops(plan: &ResolvedRequest, shape: &dyn DitShape) -> Vec<f64> {
    let (text, image) = (plan.text_len, plan.image_tokens());
    let mut flops: Vec<f64> = (0..shape.block_count())
        .map(|block| shape.block_flops(block, text, image))
        .collect();
    let [front, back] = shape.end_flops(image);
    if let Some(first) = flops.first_mut() {
        *first += front;
    }
    if let Some(last) = flops.last_mut() {
        *last += back;
    }
    flops
}
