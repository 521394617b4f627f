//! Flux against diffusers, stage by stage: the goldens of `tests/golden` (see FORMAT.md there), the demo pipeline, the
//! tensors of the real FLUX.1-dev.

mod bands;
mod cases;
mod demo;
mod flux_dev;
mod parallel;
mod vae;
mod winograd;

use xdit_tests::goldens as golden;
