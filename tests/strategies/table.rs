//! Every strategy for every family of models: the table in the README. Each test draws a picture over ranks and compares it
//! with that of one rank. The other files test details.

use xdit_models::Degrees;
use xdit_models::{Parallel, PipeFusion, Request};
use xdit_tests::goldens::max_abs;

use crate::engine::{draw, golden, pipefusion};

/// Of pixels in [0, 1]: f32 in other orders of sums, through a transformer and a decoder with random weights.
const SAME: f64 = 1e-4;

/// 7 × 3 image tokens, two pictures; 9 tokens of text where that is to choose.
fn request(prompt: &str) -> Request {
    Request::new([prompt])
        .height(112)
        .width(48)
        .num_inference_steps(3)
        .num_images_per_prompt(2)
}

fn pictures(
    name: &str,
    request: &Request,
    degrees: Degrees,
    options: PipeFusion,
    bands: bool,
) -> Vec<f32> {
    let parallel = Parallel::threads(degrees).pipefusion(options).vae(bands);
    let pipe = golden(name).parallel(parallel).expect("a legal plan");
    draw(&pipe, request)
        .float
        .expect("pictures")
        .to_vec_blocking::<f32>()
        .unwrap()
}

/// Pictures over ranks of these degrees are those of one rank, with the same patches; only bands decode by bands.
fn same_as_one_rank(
    name: &str,
    request: &Request,
    degrees: Degrees,
    options: PipeFusion,
    bands: bool,
) {
    let alone = pictures(name, request, Degrees::default(), options.clone(), false);
    let spread = alone
        .iter()
        .fold([1.0f32, 0.0], |[low, high], x| [low.min(*x), high.max(*x)]);
    assert!(
        spread[1] - spread[0] >= 0.1,
        "there is something in them: {spread:?}"
    );
    let over = pictures(name, request, degrees, options, bands);
    let off = max_abs(&over, &alone);
    assert!(off <= SAME, "{name}, {degrees}: {off:e}");
}

/// A test a strategy, under the names of README's table.
macro_rules! every_strategy {
    ($family:ident, $pipeline:literal, $request:expr) => {
        mod $family {
            use super::*;

            fn check(degrees: Degrees, options: PipeFusion, bands: bool) {
                same_as_one_rank($pipeline, &$request, degrees, options, bands);
            }

            fn exact() -> PipeFusion {
                pipefusion(1, 1)
            }

            #[test]
            fn ulysses() {
                check(
                    Degrees {
                        ulysses: 3,
                        ..Degrees::default()
                    },
                    exact(),
                    false,
                );
            }

            #[test]
            fn ring() {
                check(
                    Degrees {
                        ring: 4,
                        ..Degrees::default()
                    },
                    exact(),
                    false,
                );
            }

            #[test]
            fn pipefusion_stages() {
                check(
                    Degrees {
                        pipe: 2,
                        ..Degrees::default()
                    },
                    pipefusion(3, 1),
                    false,
                );
            }

            #[test]
            fn pipefusion_warm_up() {
                let serial = pictures($pipeline, &$request, Degrees::default(), exact(), false);
                let degrees = Degrees {
                    pipe: 2,
                    ..Degrees::default()
                };
                let whole = pictures($pipeline, &$request, degrees, pipefusion(3, 3), false);
                assert!(max_abs(&whole, &serial) <= SAME);
                let stale = pictures($pipeline, &$request, degrees, pipefusion(3, 1), false);
                assert!(max_abs(&stale, &serial) > SAME, "staleness shows");
            }

            #[test]
            fn cfg() {
                check(
                    Degrees {
                        cfg: 2,
                        ..Degrees::default()
                    },
                    exact(),
                    false,
                );
            }

            #[test]
            fn data() {
                check(
                    Degrees {
                        data: 2,
                        ..Degrees::default()
                    },
                    exact(),
                    false,
                );
            }

            #[test]
            fn parallel_vae() {
                check(
                    Degrees {
                        ulysses: 2,
                        ring: 2,
                        ..Degrees::default()
                    },
                    exact(),
                    true,
                );
            }

            #[test]
            fn hybrid() {
                let degrees = Degrees {
                    data: 2,
                    cfg: 2,
                    pipe: 2,
                    ring: 2,
                    ulysses: 2,
                };
                check(degrees, pipefusion(3, 1), true);
            }
        }
    };
}

every_strategy!(
    flux,
    "flux-dev",
    request("a red circle")
        .max_sequence_length(9)
        .negative_prompt(["green"])
        .true_cfg_scale(2.0)
);
every_strategy!(
    sd3,
    "sd35-medium",
    request("a red circle")
        .max_sequence_length(9)
        .negative_prompt(["green"])
        .guidance_scale(3.0)
);
every_strategy!(
    hunyuandit,
    "hunyuan-v1.2",
    request("一个红色的圆")
        .negative_prompt(["green"])
        .guidance_scale(3.0)
        .use_resolution_binning(false)
);
