//! How a checked call is spread over time and stages.

use xdit_comm::{Axis, Degrees, Shard};
use xdit_kernels::DType;
use xdit_pipefusion::{PatchPlan, Schedule, StagePlan, StepTraffic};

use super::plan::Plan;
use super::{FluxConfig, costs};
use crate::compose::Layout;
use crate::error::{Error, Result};
use crate::parallel::{Parallel, StageSplit};
use crate::run_plan::{RankPlan, RunPlan, StageSummary};

/// Patches, stages and steps of a call, on ranks of these degrees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) patches: PatchPlan,
    pub(crate) schedule: Schedule,
    pub(crate) stages: StagePlan,
    pub(crate) max_drift: Option<f32>,
    degrees: Degrees,
    dtype: DType,
    /// Prompts of each image: two with a negative one.
    branches: usize,
}

impl Spread {
    pub(crate) fn new(
        plan: &Plan,
        parallel: &Parallel,
        flux: &FluxConfig,
        dtype: DType,
        branches: usize,
    ) -> Result<Self> {
        let (options, degrees) = (&parallel.pipefusion, parallel.degrees);
        let blocks = flux.block_count();
        let stages = match &options.stages {
            StageSplit::Blocks(counts) if counts.len() != degrees.pipe => {
                let allowed = format!("{} of them, one for each stage", degrees.pipe);
                let given = format!("{} numbers", counts.len());
                return Err(Error::invalid("attn_layer_num_for_pp", given, allowed));
            }
            StageSplit::Blocks(counts) => StagePlan::explicit(counts, blocks)?,
            StageSplit::Flops => StagePlan::balanced(&flops(plan, flux), degrees.pipe)?,
            StageSplit::Memory => {
                let bytes: Vec<f64> = (0..blocks)
                    .map(|block| costs::block_bytes(flux, block, dtype) as f64)
                    .collect();
                StagePlan::balanced(&bytes, degrees.pipe)?
            }
        };
        let [rows, columns] = plan.tokens;
        let patches = match options.patches {
            Some(count) => PatchPlan::new(rows, columns, count)?,
            None => PatchPlan::new(rows, columns, degrees.pipe).map_err(of_stages)?,
        };
        Ok(Self {
            patches,
            schedule: Schedule {
                steps: plan.sigmas.len(),
                warmup_steps: options.warmup_steps,
                patches: patches.count(),
            },
            stages,
            max_drift: options.max_drift,
            degrees,
            dtype,
            branches,
        })
    }

    /// Bytes of keys and values that all ranks keep together.
    pub(crate) fn kept_bytes(&self, plan: &Plan, flux: &FluxConfig) -> u64 {
        let ranks = self.ranks(plan, flux);
        ranks
            .iter()
            .fold(0, |sum: u64, rank| sum.saturating_add(rank.kv_bytes))
    }

    fn ranks(&self, plan: &Plan, flux: &FluxConfig) -> Vec<RankPlan> {
        (0..self.degrees.product().unwrap_or(0))
            .map(|rank| {
                let blocks = self.stages.blocks(self.degrees.coord(rank, Axis::Pipe));
                RankPlan {
                    rank,
                    coordinates: Axis::ALL.map(|axis| self.degrees.coord(rank, axis)),
                    parameter_bytes: costs::stage_bytes(flux, blocks, self.dtype),
                    kv_bytes: self.kv_bytes(plan, flux, rank),
                }
            })
            .collect()
    }

    fn kv_bytes(&self, plan: &Plan, flux: &FluxConfig, rank: usize) -> u64 {
        if self.patches.count() == 1 {
            return 0;
        }
        let [data, stage, ring, ulysses] = [Axis::Data, Axis::Pipe, Axis::Ring, Axis::Ulysses]
            .map(|axis| self.degrees.coord(rank, axis));
        // After the all-to-all a rank has its heads of the rows of its Ulysses group.
        let rows: usize = (0..self.degrees.ulysses)
            .map(|u| ring * self.degrees.ulysses + u)
            .map(|rank| Layout::of_rank(self.degrees, rank, plan.text_len, self.patches).rows())
            .sum();
        let factors = [
            2,
            self.stages.blocks(stage).len(),
            rows,
            Shard::of(flux.num_attention_heads, self.degrees.ulysses, ulysses).len,
            flux.attention_head_dim,
            self.dtype.size(),
            Shard::of(plan.images, self.degrees.data, data).len,
            self.branches,
        ];
        factors
            .iter()
            .fold(1, |bytes: u64, n| bytes.saturating_mul(*n as u64))
    }

    /// The whole plan, to be shown.
    pub(crate) fn run_plan(&self, plan: &Plan, flux: &FluxConfig) -> RunPlan {
        let flops = flops(plan, flux);
        let total: f64 = flops.iter().sum();
        let stages = (0..self.stages.count())
            .map(|stage| {
                let blocks = self.stages.blocks(stage);
                let double = blocks.end.min(flux.num_layers) - blocks.start.min(flux.num_layers);
                StageSummary {
                    kinds: vec![("double", double), ("single", blocks.len() - double)],
                    flops_share: flops[blocks.clone()].iter().sum::<f64>() / total,
                    parameter_bytes: costs::stage_bytes(flux, blocks.clone(), self.dtype),
                    blocks,
                }
            })
            .collect();
        let lossy = (0..self.schedule.steps).find(|step| !self.schedule.is_whole(*step));
        RunPlan {
            height: plan.height,
            width: plan.width,
            images: plan.images,
            text_tokens: plan.text_len,
            image_tokens: plan.image_tokens(),
            degrees: self.degrees,
            patches: self.patches,
            schedule: self.schedule,
            stages,
            ranks: self.ranks(plan, flux),
            whole_step: self.traffic(0, plan, flux),
            patched_step: lossy.map(|step| self.traffic(step, plan, flux)),
        }
    }

    /// What one replica with the most images sends from stage to stage in a step, all ranks of a stage together.
    fn traffic(&self, step: usize, plan: &Plan, flux: &FluxConfig) -> StepTraffic {
        let images = plan.images.div_ceil(self.degrees.data);
        let mut traffic = StepTraffic::new(
            &self.schedule.parts(step),
            &self.patches,
            plan.text_len,
            images * self.branches * flux.hidden_size() * self.dtype.size(),
            images * flux.in_channels * DType::F32.size(),
        );
        let ranks = self.degrees.ring * self.degrees.ulysses;
        traffic.forward.messages *= self.branches * ranks;
        traffic.back.messages *= ranks;
        traffic
    }
}

/// Tells where a number of patches comes from that was not asked for.
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

/// FLOPs of each block, those of the ends added to the first and the last.
fn flops(plan: &Plan, flux: &FluxConfig) -> Vec<f64> {
    let (text, image) = (plan.text_len, plan.image_tokens());
    let mut flops: Vec<f64> = (0..flux.block_count())
        .map(|block| costs::block_flops(flux, block, text, image))
        .collect();
    let [front, back] = costs::end_flops(flux, image);
    if let Some(first) = flops.first_mut() {
        *first += front;
    }
    if let Some(last) = flops.last_mut() {
        *last += back;
    }
    flops
}
