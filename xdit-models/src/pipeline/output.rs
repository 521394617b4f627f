//! The result of a call.

use xdit_comm::Stats;
use xdit_kernels::Tensor;
use xdit_pipefusion::Report;

use crate::pipeline::image::Image;
use crate::pipeline::rank_plan::RankMemory;
use crate::pipeline::run_plan::RunPlan;
use crate::ranks::run_part::RunPart;

/// The result of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// The images. Empty if the request asks only for latents.
    pub images: Vec<Image>,
    /// The images before rounding: `[images, 3, height, width]` f32 in [0, 1].
    pub float: Option<Tensor>,
    /// The final latents, packed: `[images, tokens, channels]`, as diffusers returns them for `output_type="latent"`.
    pub latents: Tensor,
    /// The plan of the call.
    pub plan: RunPlan,
    /// The messages of each rank, by rank. Empty for one rank.
    pub communication: Vec<Stats>,
    /// The memory of each rank that had images, by rank.
    pub memory: Vec<RankMemory>,
    /// The report of each replica that had images, by replica. It contains the drift if there were several patches.
    pub pipefusion: Vec<Report>,
    /// The parts of the call in order: the ranks of each, and why it ended if a rank was lost. One part if none was lost. The plan,
    /// the messages, the memory and the reports are those of the last part.
    pub parts: Vec<RunPart>,
}
