//! Two to four ranks that share one GPU draw what one rank draws there.

use xdit_kernels::Device;
use xdit_models::{Degrees, Parallel, PipeFusion, Request};
use xdit_tests::over_ranks::same_as_one_rank;

use crate::support::{gpu, is_small};

fn request(prompt: &str) -> Request {
    let (height, width, steps) = if is_small() {
        (32, 32, 2)
    } else {
        (112, 48, 3)
    };
    Request::new([prompt])
        .height(height)
        .width(width)
        .num_inference_steps(steps)
}

fn check(pipeline: &str, request: &Request, degrees: Degrees, patches: usize, bands: bool) {
    let options = PipeFusion::default().patches(patches).warmup_steps(1);
    same_as_one_rank(pipeline, &gpu(), request, degrees, options, bands);
}

fn flux(degrees: Degrees, patches: usize, bands: bool) {
    let request = request("a red circle").max_sequence_length(5);
    check("flux-dev", &request, degrees, patches, bands);
}

#[test]
#[ignore = "needs a GPU"]
fn ulysses() {
    flux(
        Degrees {
            ulysses: 2,
            ..Degrees::default()
        },
        1,
        false,
    );
}

#[test]
#[ignore = "needs a GPU"]
fn ring() {
    flux(
        Degrees {
            ring: 2,
            ..Degrees::default()
        },
        1,
        false,
    );
}

#[test]
#[ignore = "needs a GPU"]
fn ulysses_and_ring_with_bands_of_the_decoder() {
    let degrees = Degrees {
        ulysses: 2,
        ring: 2,
        ..Degrees::default()
    };
    flux(degrees, 1, true);
}

#[test]
#[ignore = "needs a GPU"]
fn pipefusion() {
    flux(
        Degrees {
            pipe: 2,
            ..Degrees::default()
        },
        2,
        false,
    );
}

#[test]
#[ignore = "needs a GPU"]
fn a_folded_pipeline() {
    let request = request("一个红色的圆").use_resolution_binning(false);
    let degrees = Degrees {
        pipe: 2,
        ..Degrees::default()
    };
    check("hunyuan-v1.2", &request, degrees, 2, false);
}

#[test]
#[ignore = "needs a GPU"]
fn guidance() {
    let request = request("a red circle")
        .max_sequence_length(5)
        .guidance_scale(3.0);
    let degrees = Degrees {
        cfg: 2,
        ..Degrees::default()
    };
    check("sd35-medium", &request, degrees, 1, false);
}

#[test]
#[ignore = "needs a GPU"]
fn a_hybrid() {
    let request = request("a red circle")
        .max_sequence_length(5)
        .guidance_scale(3.0);
    let degrees = Degrees {
        cfg: 2,
        pipe: 2,
        ..Degrees::default()
    };
    check("sd3-medium", &request, degrees, 2, true);
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_beside_the_processor_is_refused() {
    let two = Degrees {
        ulysses: 2,
        ..Degrees::default()
    };
    for devices in [[Device::cpu(), gpu()], [gpu(), Device::cpu()]] {
        let checked = Parallel::threads(two).on(devices.to_vec()).check();
        let error = checked.unwrap_err().to_string();
        let told = "must be the processor alone, or GPUs alone";
        assert!(error.ends_with(told), "{error}");
    }
}
