//! The recorded calls of diffusers on a GPU: in f32 as on the processor, in bf16 as near as there.

use xdit_tests::golden_run::{drawable, images_match};
use xdit_tests::goldens::Golden;
use xdit_tests::psnr::near_in_bf16;

use crate::support::{gpu, is_small};

/// About how much a call computes.
fn work(golden: &Golden) -> u64 {
    let call = &golden.meta["call"];
    let number = |name: &str, default| call[name].as_u64().unwrap_or(default);
    let prompts = call["prompt"].as_array().map_or(1, Vec::len) as u64;
    let text = 256 * number("max_sequence_length", 256);
    let pixels = number("height", 1024) * number("width", 1024) * number("num_inference_steps", 50);
    prompts * number("num_images_per_prompt", 1) * (pixels + text)
}

/// All calls of a pipeline; where the tests are small, the cheapest.
fn cases(pipeline: &str) -> Vec<(String, Golden)> {
    let mut cases = drawable(pipeline);
    if is_small() {
        cases.sort_by_key(|(_, golden)| work(golden));
        cases.truncate(1);
    }
    cases
}

macro_rules! goldens {
    ($name:ident, $pipeline:literal) => {
        mod $name {
            use super::*;

            #[test]
            #[ignore = "needs a GPU"]
            fn in_f32() {
                images_match($pipeline, &gpu(), &cases($pipeline));
            }

            #[test]
            #[ignore = "needs a GPU"]
            fn in_bf16() {
                near_in_bf16($pipeline, &gpu(), &cases($pipeline));
            }
        }
    };
}

goldens!(flux_dev, "flux-dev");
goldens!(flux_schnell, "flux-schnell");
goldens!(sd3_medium, "sd3-medium");
goldens!(sd35_medium, "sd35-medium");
goldens!(sd35_large, "sd35-large");
goldens!(hunyuan_v1_1, "hunyuan-v1.1");
goldens!(hunyuan_v1_2, "hunyuan-v1.2");
