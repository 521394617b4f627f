//! The result of a call.

use xdit_comm::Stats;
use xdit_kernels::Tensor;
use xdit_pipefusion::Report;

use crate::pipeline::image::Image;
use crate::pipeline::rank_plan::RankMemory;
use crate::pipeline::run_plan::RunPlan;

/// What a call returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// The images; empty when only latents were asked for.
    pub images: Vec<Image>,
    /// The images before rounding: `[images, 3, height, width]` f32 in [0, 1].
    pub float: Option<Tensor>,
    /// The final latents, packed: `[images, tokens, channels]`, as diffusers' `output_type="latent"` returns them.
    pub latents: Tensor,
    /// What was drawn, and how it was shared out.
    pub plan: RunPlan,
    /// What each rank sent, by rank; empty when there was one.
    pub communication: Vec<Stats>,
    /// What each rank that had images held, by rank.
    pub memory: Vec<RankMemory>,
    /// What each replica that had images has measured and done, by replica: drift where patches were several.
    pub pipefusion: Vec<Report>,
}
