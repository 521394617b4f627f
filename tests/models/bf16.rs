//! Every recorded call of diffusers, drawn in bf16 in every tier: near the image that diffusers draws in f32.

use xdit_tests::golden_run::{devices, drawable};
use xdit_tests::psnr::near_in_bf16;

fn is_near_diffusers(pipeline: &str) {
    let cases = drawable(pipeline);
    for device in devices() {
        near_in_bf16(pipeline, &device, &cases);
    }
}

#[test]
fn flux_dev_in_bf16_is_near_diffusers() {
    is_near_diffusers("flux-dev");
}

#[test]
fn flux_schnell_in_bf16_is_near_diffusers() {
    is_near_diffusers("flux-schnell");
}

#[test]
fn sd3_medium_in_bf16_is_near_diffusers() {
    is_near_diffusers("sd3-medium");
}

#[test]
fn sd35_medium_in_bf16_is_near_diffusers() {
    is_near_diffusers("sd35-medium");
}

#[test]
fn sd35_large_in_bf16_is_near_diffusers() {
    is_near_diffusers("sd35-large");
}

#[test]
fn hunyuan_v1_1_in_bf16_is_near_diffusers() {
    is_near_diffusers("hunyuan-v1.1");
}

#[test]
fn hunyuan_v1_2_in_bf16_is_near_diffusers() {
    is_near_diffusers("hunyuan-v1.2");
}
