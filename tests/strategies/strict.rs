//! Runs every strategy with every family (the table in the README) on the strict backend, which behaves like NCCL
//! (`xdit_comm::strict`): the batches of a rank run one after another, a receive blocks later ones, and no order of sums is
//! promised. The pictures equal those on threads, to the last bit.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use xdit_comm::strict::{self, StrictOptions};
use xdit_kernels::Tensor;
use xdit_models::{Degrees, Parallel, PipeFusion, Pipeline, Request};

use crate::engine::{draw, golden, options, pipefusion, source};

/// 7 × 3 image tokens; 9 tokens of text where that is to choose.
fn request(prompt: &str) -> Request {
    Request::new([prompt])
        .height(112)
        .width(48)
        .num_inference_steps(3)
        .negative_prompt(["green"])
}

fn families() -> [(&'static str, Request); 3] {
    let circle = request("a red circle").max_sequence_length(9);
    [
        ("flux-dev", circle.clone().true_cfg_scale(2.0)),
        ("sd35-medium", circle.guidance_scale(3.0)),
        (
            "hunyuan-v1.2",
            request("一个红色的圆")
                .guidance_scale(3.0)
                .use_resolution_binning(false),
        ),
    ]
}

/// Seeds of random delays for each plan and family. The plans below are ten, each with seeds of its own: 200 a family.
const SEEDS: u64 = 20;

/// Ranks of these degrees draw on the strict backend what they draw on threads, whatever is late. `plan` is the number of this
/// plan in the file, and selects the seeds.
fn same_as_threads(plan: u64, degrees: Degrees, parts: &PipeFusion, bands: bool) {
    for (name, request) in families() {
        let request = request.num_images_per_prompt(degrees.data);
        let parallel = Parallel::threads(degrees)
            .pipefusion(parts.clone())
            .vae(bands);
        let on_threads = golden(name).parallel(parallel).expect("a legal plan");
        let want = draw(&on_threads, &request).float.expect("pictures");
        let world = degrees.product().expect("a few ranks");
        let pipes: Arc<Vec<_>> = Arc::new((0..world).map(|_| Mutex::new(None)).collect());
        for seed in plan * SEEDS..(plan + 1) * SEEDS {
            let strict = StrictOptions {
                delay: Duration::from_micros(100),
                ..StrictOptions::seed(seed)
            };
            let (request, parts, pipes) = (request.clone(), parts.clone(), pipes.clone());
            let pictures = strict::run(world, &strict, move |group| {
                let mut pipe = pipes[group.rank()].lock().expect("the rank's own");
                let parallel = Parallel::group(degrees, group)
                    .pipefusion(parts.clone())
                    .vae(bands);
                let mut one = options();
                one.threads = Some(1);
                let told = |error: xdit_models::Error| xdit_comm::Error::Kernel(error.to_string());
                let made = match pipe.take() {
                    Some(loaded) => Pipeline::parallel(loaded, parallel),
                    None => Pipeline::load_over(&source(name), &one, parallel, &mut ()),
                };
                let output = pipe.insert(made.map_err(told)?).generate(&request, &mut ());
                Ok(output.map_err(told)?.float)
            });
            let pictures =
                pictures.unwrap_or_else(|e| panic!("{name}, {degrees}, seed {seed}: {e}"));
            // The first rank of the first replica has all, that of another one its own.
            let values = |x: Tensor| x.to_vec_blocking::<f32>().expect("f32");
            let drawn: Vec<Vec<f32>> = pictures.into_iter().flatten().map(values).collect();
            assert_eq!(drawn.len(), degrees.data, "{name}, {degrees}");
            let own = drawn[1..].concat();
            let same = drawn[0] == values(want.clone()) && drawn[0].ends_with(&own);
            assert!(same, "{name}, {degrees}, seed {seed}: other pictures");
        }
    }
}

fn exact() -> PipeFusion {
    pipefusion(1, 1)
}

fn ranks(set: impl FnOnce(&mut Degrees)) -> Degrees {
    let mut degrees = Degrees::default();
    set(&mut degrees);
    degrees
}

#[test]
fn ulysses() {
    same_as_threads(0, ranks(|d| d.ulysses = 3), &exact(), false);
}

#[test]
fn ring() {
    same_as_threads(1, ranks(|d| d.ring = 4), &exact(), false);
}

/// HunyuanDiT's pipeline is folded, the others are straight.
#[test]
fn pipefusion_stages() {
    for (plan, stages) in [(2, 2), (9, 3)] {
        same_as_threads(plan, ranks(|d| d.pipe = stages), &pipefusion(3, 1), false);
    }
}

#[test]
fn pipefusion_warm_up() {
    same_as_threads(3, ranks(|d| d.pipe = 2), &pipefusion(3, 3), false);
}

#[test]
fn pipefusion_that_watches_the_drift() {
    let parts = pipefusion(3, 0).max_drift(0.05);
    same_as_threads(4, ranks(|d| d.pipe = 2), &parts, false);
}

#[test]
fn cfg() {
    same_as_threads(5, ranks(|d| d.cfg = 2), &exact(), false);
}

#[test]
fn data() {
    same_as_threads(6, ranks(|d| d.data = 2), &exact(), false);
}

#[test]
fn parallel_vae() {
    let degrees = ranks(|d| (d.ulysses, d.ring) = (2, 2));
    same_as_threads(7, degrees, &exact(), true);
}

#[test]
fn hybrid() {
    let degrees = ranks(|d| (d.cfg, d.pipe, d.ring, d.ulysses) = (2, 2, 2, 2));
    same_as_threads(8, degrees, &pipefusion(3, 1), true);
}
