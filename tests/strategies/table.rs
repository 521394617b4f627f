//! Every strategy for every family of models: the table in the README. Each test draws a picture over ranks and compares it
//! with that of one rank. The other files test details.

use xdit_kernels::Device;
use xdit_models::{Degrees, PipeFusion, Request};
use xdit_tests::goldens::max_abs;
use xdit_tests::over_ranks::{self, SAME, same_as_one_rank};

use crate::engine::pipefusion;

/// 7 × 3 image tokens, two pictures; 9 tokens of text where that is to choose.
fn request(prompt: &str) -> Request {
    Request::new([prompt])
        .height(112)
        .width(48)
        .num_inference_steps(3)
        .num_images_per_prompt(2)
}

/// A test a strategy, under the names of README's table.
macro_rules! every_strategy {
    ($family:ident, $pipeline:literal, $request:expr) => {
        mod $family {
            use super::*;

            fn check(degrees: Degrees, options: PipeFusion, bands: bool) {
                same_as_one_rank(
                    $pipeline,
                    &Device::cpu(),
                    &$request,
                    degrees,
                    options,
                    bands,
                );
            }

            fn pictures(degrees: Degrees, options: PipeFusion) -> Vec<f32> {
                let cpu = Device::cpu();
                over_ranks::pictures($pipeline, &cpu, &$request, degrees, options, false)
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
                let serial = pictures(Degrees::default(), exact());
                let degrees = Degrees {
                    pipe: 2,
                    ..Degrees::default()
                };
                let whole = pictures(degrees, pipefusion(3, 3));
                assert!(max_abs(&whole, &serial) <= SAME);
                let stale = pictures(degrees, pipefusion(3, 1));
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
                    ..Degrees::default()
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
