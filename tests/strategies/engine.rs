//! The engine under test: a golden pipeline, and runs of it.

use xdit_kernels::Tensor;
use xdit_models::Degrees;
use xdit_models::{LoadOptions, Output, OutputType, Parallel, PipeFusion, Pipeline, Request};

pub(crate) use xdit_tests::goldens::values;
pub(crate) use xdit_tests::recorded::source;

pub(crate) fn options() -> LoadOptions {
    LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    }
}

pub(crate) fn golden(name: &str) -> Pipeline {
    Pipeline::load(&source(name), &options(), &mut ()).expect("a pipeline")
}

/// 9 × 5 image tokens and 13 of text: nothing divides evenly.
pub(crate) fn request() -> Request {
    Request::new(["a red circle and a blue square"])
        .height(144)
        .width(80)
        .num_inference_steps(4)
        .max_sequence_length(13)
        .output(OutputType::Latent)
}

/// `[data, pipe, ring, ulysses]`.
pub(crate) fn degrees([data, pipe, ring, ulysses]: [usize; 4]) -> Degrees {
    Degrees {
        data,
        pipe,
        ring,
        ulysses,
        ..Degrees::default()
    }
}

pub(crate) fn pipefusion(patches: usize, warmup_steps: usize) -> PipeFusion {
    PipeFusion::default()
        .patches(patches)
        .warmup_steps(warmup_steps)
}

/// The pipeline over ranks as threads.
pub(crate) fn over(pipe: Pipeline, axes: [usize; 4], pipefusion: PipeFusion) -> Pipeline {
    pipe.parallel(Parallel::threads(degrees(axes)).pipefusion(pipefusion))
        .expect("a legal plan")
}

pub(crate) fn draw(pipe: &Pipeline, request: &Request) -> Output {
    pipe.generate(request, &mut ()).expect("latents")
}

/// Every `[data, cfg, pipe, ring, ulysses]` of up to 16 ranks, with at most three replicas and so many stages.
pub(crate) fn products(most_stages: usize) -> Vec<[usize; 5]> {
    let mut products = Vec::new();
    let up_to = |product: usize| 1..=16 / product;
    for cfg in [1, 2] {
        for data in up_to(cfg).filter(|data| *data <= 3) {
            for pipe in up_to(cfg * data).filter(|pipe| *pipe <= most_stages) {
                for ring in up_to(cfg * data * pipe) {
                    for ulysses in up_to(cfg * data * pipe * ring) {
                        products.push([data, cfg, pipe, ring, ulysses]);
                    }
                }
            }
        }
    }
    assert!(products.len() > 150, "{}", products.len());
    products
}

/// Latents as the values of tokens that hold (dy, dx, channel).
pub(crate) fn tokens(latents: &Tensor) -> Vec<f32> {
    values(&xdit_tests::recorded::tokens(latents))
}

/// The latents of the same over ranks: `[data, cfg, pipe, ring, ulysses]`.
pub(crate) fn drawn(
    pipe: &mut Option<Pipeline>,
    axes: [usize; 5],
    pipefusion: PipeFusion,
    request: &Request,
) -> Tensor {
    output(pipe, axes, pipefusion, request).latents
}

/// A request's outcome over ranks; the pipeline is lent out and comes back.
pub(crate) fn output(
    pipe: &mut Option<Pipeline>,
    axes: [usize; 5],
    pipefusion: PipeFusion,
    request: &Request,
) -> Output {
    let [data, cfg, stages, ring, ulysses] = axes;
    let degrees = Degrees {
        data,
        cfg,
        pipe: stages,
        ring,
        ulysses,
        ..Degrees::default()
    };
    let parallel = Parallel::threads(degrees).pipefusion(pipefusion);
    let over = pipe
        .take()
        .unwrap()
        .parallel(parallel)
        .expect("a legal plan");
    draw(pipe.insert(over), request)
}

pub(crate) fn latents(pipe: &Pipeline, request: &Request) -> Vec<f32> {
    values(&draw(pipe, request).latents)
}

pub(crate) use xdit_tests::goldens::relative_l2 as apart;

/// f32 attention in other orders of sums, through every block and step of models with random weights: what the issues allow.
/// Seen over all products for Flux: 2.1e-7.
pub(crate) const HYBRID: f64 = 1e-5;
/// The same operations on other ranks: only whether rows came alone or with others differs.
pub(crate) const SAME: f64 = 1e-6;
