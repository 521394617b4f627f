//! HunyuanDiT against diffusers, stage by stage: the goldens of `tests/golden` (see FORMAT.md there), the tensors of the real
//! models.

mod encoders;
mod names;
mod pipeline;
mod sizes;
mod transformer;

/// The golden pipelines, each with what makes it different.
const V1_1: &str = "hunyuan-v1.1"; // style and sizes are embedded
const V1_2: &str = "hunyuan-v1.2";
