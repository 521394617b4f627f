//! Calls that lose a rank and continue on the others, and calls that continue after the steps of another call.

mod faults;
mod groups;
mod resume;
mod threads;

use xdit_models::{Output, Request};

const STEPS: usize = 6;

/// 4 × 3 image tokens, three pictures.
fn small(prompt: &str) -> Request {
    Request::new([prompt])
        .height(64)
        .width(48)
        .num_inference_steps(STEPS)
        .num_images_per_prompt(3)
        .guidance_scale(3.0)
        .negative_prompt(["green"])
}

/// A golden pipeline of each family, and a request with two branches of guidance.
fn families() -> [(&'static str, Request); 3] {
    let flux = small("a red circle").max_sequence_length(9);
    let sd3 = small("a red circle").max_sequence_length(9);
    let hunyuandit = small("一个红色的圆").use_resolution_binning(false);
    [
        ("flux-dev", flux.true_cfg_scale(2.0)),
        ("sd35-medium", sd3),
        // Its scheduler draws noise in each step.
        ("hunyuan-v1.2", hunyuandit),
    ]
}

fn float(output: &Output) -> Vec<f32> {
    let float = output.float.as_ref().expect("pictures");
    float.to_vec_blocking::<f32>().expect("values")
}
