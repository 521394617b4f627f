//! SD3 and SD3.5 against diffusers, stage by stage: the goldens of `tests/golden` (see FORMAT.md there), the tensors of the
//! real models.

mod encoders;
mod names;
mod pipeline;
mod transformer;

/// The golden pipelines, each with what makes it different.
const SD3_MEDIUM: &str = "sd3-medium"; // no T5, no norms of queries and keys
const SD35_MEDIUM: &str = "sd35-medium"; // dual attention
const SD35_LARGE: &str = "sd35-large"; // 38 heads
