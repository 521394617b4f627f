//! Any number of ranks draws the same pictures.

use std::io;
use std::ops::ControlFlow;

use xdit_comm::threads;
use xdit_kernels::Tensor;
use xdit_models::{Degrees, axes};
use xdit_models::{
    Error, ErrorCategory, LoadOptions, ModelSource, Observer, Output, Parallel, Pipeline, Request,
    StepEnd,
};

use xdit_tests::goldens::{Recorder, max_abs, path, within};

/// f32 sums in another order inside attention, through all steps and the decoder. Seen: below 5e-6.
const IMAGE: f64 = 2e-5;

fn golden_pipeline(name: &str) -> Pipeline {
    let source =
        ModelSource::folder(path(&format!("pipelines/{name}"))).expect("a golden pipeline");
    load(&source)
}

fn load(source: &ModelSource) -> Pipeline {
    let options = LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    };
    Pipeline::load(source, &options, &mut ()).expect("a pipeline")
}

fn over(pipe: Pipeline, degrees: Degrees) -> Pipeline {
    pipe.parallel(Parallel::threads(degrees))
        .expect("a legal plan")
}

fn sequence(ring: usize, ulysses: usize) -> Degrees {
    Degrees {
        ring,
        ulysses,
        ..Degrees::default()
    }
}

fn draw(pipe: &Pipeline, request: &Request) -> Output {
    pipe.generate(request, &mut ()).expect("pictures")
}

fn float(output: &Output) -> Vec<f32> {
    output
        .float
        .as_ref()
        .expect("a picture")
        .to_vec_blocking::<f32>()
        .unwrap()
}

/// Every plan of at most eight ranks.
fn plans() -> Vec<Degrees> {
    (1..=8)
        .flat_map(|ring| (1..=8 / ring).map(move |ulysses| sequence(ring, ulysses)))
        .filter(|plan| plan.product() != Some(1))
        .collect()
}

fn same_picture_under(mut pipe: Pipeline, request: &Request, plans: &[Degrees]) {
    let whole = draw(&pipe, request);
    for plan in plans {
        pipe = over(pipe, *plan);
        let shared = draw(&pipe, request);
        let apart = max_abs(&float(&shared), &float(&whole));
        assert!(within(apart, IMAGE), "{plan}: {apart:.2e}");
        assert_eq!(shared.images.len(), whole.images.len());
        assert_eq!(Some(shared.communication.len()), plan.product());
    }
}

#[test]
fn any_ulysses_and_ring_give_the_picture_of_one_rank() {
    // Four heads, so that Ulysses has more ranks than heads; 7 × 5 image tokens and 13 of text divide by nothing.
    let request = Request::new(["a red circle and a blue square"])
        .negative_prompt(["green"])
        .true_cfg_scale(2.0)
        .height(112)
        .width(80)
        .num_inference_steps(2)
        .max_sequence_length(13);
    same_picture_under(golden_pipeline("flux-dev"), &request, &plans());
}

#[test]
fn more_ranks_than_tokens_is_legal() {
    let request = Request::new(["a"; 2])
        .height(16)
        .width(32)
        .num_inference_steps(1)
        .max_sequence_length(1);
    let plans = [sequence(3, 2), sequence(1, 8), sequence(5, 1)];
    same_picture_under(golden_pipeline("flux-schnell"), &request, &plans);
}

#[test]
fn the_demo_at_a_size_that_divides_by_nothing() {
    let request = Request::new(["a red circle on a blue background"])
        .height(336)
        .width(272)
        .num_inference_steps(2);
    let plans = [sequence(2, 2), sequence(1, 3), sequence(5, 1)];
    same_picture_under(load(&ModelSource::demo()), &request, &plans);
}

#[test]
#[ignore = "twenty plans at twenty steps: minutes"]
fn the_demo_under_every_plan() {
    let request = Request::new(["a red circle on a blue background"])
        .height(336)
        .width(272);
    same_picture_under(load(&ModelSource::demo()), &request, &plans());
}

#[test]
fn replicas_change_no_byte() {
    let mut pipe = load(&ModelSource::demo());
    let base = || {
        Request::new(["a red circle", "a green star", "a blue square"])
            .height(64)
            .width(80)
            .num_inference_steps(2)
    };
    let one_seed = base();
    let own_seeds = base().num_images_per_prompt(2).seeds([5, 6, 7, 8, 9, 10]);
    for request in [one_seed, own_seeds] {
        pipe = over(pipe, Degrees::default());
        let whole = draw(&pipe, &request);
        // Two share three unevenly; seven are more than there are pictures.
        for data in [2, 3, 7] {
            pipe = over(
                pipe,
                Degrees {
                    data,
                    ..Degrees::default()
                },
            );
            let shared = draw(&pipe, &request);
            let bytes = |output: &Output| {
                output
                    .float
                    .as_ref()
                    .unwrap()
                    .host_bytes_blocking()
                    .unwrap()
                    .to_vec()
            };
            assert!(bytes(&shared) == bytes(&whole), "{data} replicas differ");
            assert!(
                shared.latents.host_bytes_blocking().unwrap()
                    == whole.latents.host_bytes_blocking().unwrap()
            );
        }
    }
    let both = over(
        pipe,
        Degrees {
            data: 2,
            ulysses: 2,
            ..Degrees::default()
        },
    );
    let shared = draw(&both, &base());
    let whole = draw(&over(both, Degrees::default()), &base());
    let apart = max_abs(&float(&shared), &float(&whole));
    assert!(within(apart, IMAGE), "{apart:.2e}");
}

#[test]
fn tiles_give_way_to_bands() {
    let pipe = golden_pipeline("flux-dev");
    // Larger than a tile of 64 pixels.
    let request = Request::new(["a"])
        .height(96)
        .width(80)
        .num_inference_steps(1);
    let whole = float(&draw(&pipe, &request));
    let tiled = float(&draw(&pipe, &request.clone().vae_tiling(true)));
    assert!(max_abs(&tiled, &whole) >= 1e-3, "there are tiles");
    let replicas = Degrees {
        data: 2,
        ..Degrees::default()
    };
    let pipe = over(pipe, replicas);
    let by_replicas = float(&draw(&pipe, &request.clone().vae_tiling(true)));
    assert_eq!(
        by_replicas, tiled,
        "a rank that decodes alone may use tiles"
    );
    let pipe = over(pipe, sequence(1, 2));
    let mut seen = Recorder::default();
    let bands = pipe
        .generate(&request.clone().vae_tiling(true), &mut seen)
        .unwrap();
    assert!(within(max_abs(&float(&bands), &whole), IMAGE));
    assert!(seen.warnings.iter().any(|text| text.contains("vae_tiling")));
    let alone = pipe.parallel(Parallel::threads(sequence(1, 2)).vae(false));
    let alone = float(&draw(&alone.unwrap(), &request.vae_tiling(true)));
    assert!(within(max_abs(&alone, &tiled), IMAGE));
}

#[test]
fn bytes_sent_are_what_the_formula_says() {
    // What the decoder sends is in `bands.rs`.
    let denoise = Parallel::threads(sequence(1, 2)).vae(false);
    let pipe = golden_pipeline("flux-schnell").parallel(denoise).unwrap();
    let (text, image, steps) = (6, 8, 3);
    let request = Request::new(["a"])
        .height(32)
        .width(64)
        .num_inference_steps(steps)
        .max_sequence_length(text);
    let output = draw(&pipe, &request);
    let config = std::fs::read_to_string(path("pipelines/flux-schnell/transformer/config.json"));
    let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
    let field = |name: &str| config[name].as_u64().unwrap() as usize;
    let c = field("num_attention_heads") * field("attention_head_dim");
    let layers = field("num_layers") + field("num_single_layers");
    // Half of the heads of q, k and v of half of the tokens go out, and half of the outputs come back.
    let attention = 4 * (text + image) / 2 * (c / 2) * 4 * layers * steps;
    for stats in &output.communication {
        let sent = stats[&("all_to_all", Some(axes::ULYSSES))];
        assert_eq!(sent.bytes, attention);
        assert_eq!(sent.calls, 2 * layers * steps);
        // Each rank hands the other its half of the latents, once, as nobody follows the steps.
        let gathered = stats[&("all_gather", None)];
        assert_eq!(gathered.calls, 1);
        assert_eq!(gathered.bytes, image / 2 * field("in_channels") * 4);
    }
}

#[test]
fn ranks_of_the_callers_own_group() {
    fn request() -> Request {
        Request::new(["a"; 3])
            .height(48)
            .width(32)
            .num_inference_steps(2)
            .max_sequence_length(5)
    }
    let whole = draw(&golden_pipeline("flux-schnell"), &request());
    // Each rank loads its own pipeline, as a process would, and makes the same call.
    let degrees = Degrees {
        data: 2,
        ulysses: 2,
        ..Degrees::default()
    };
    let outputs = threads::run(4, move |group| {
        let pipe = golden_pipeline("flux-schnell")
            .parallel(Parallel::group(degrees, group))
            .expect("a legal plan");
        Ok(draw(&pipe, &request()))
    })
    .expect("four ranks");
    let images: Vec<usize> = outputs.iter().map(|output| output.images.len()).collect();
    assert_eq!(
        images,
        [3, 0, 1, 0],
        "the first rank has all images, the first of another replica its own"
    );
    let latents: Vec<usize> = outputs.iter().map(|o| o.latents.dim(0)).collect();
    assert_eq!(
        latents,
        [3, 2, 1, 1],
        "the first rank has all latents, another one its replica's"
    );
    let all = float(&outputs[0]);
    let apart = max_abs(&all, &float(&whole));
    assert!(within(apart, IMAGE), "{apart:.2e}");
    assert!(all.ends_with(&float(&outputs[2])));
    // A world of another size is refused with the nearest plan.
    let refused = threads::run(3, move |group| {
        let pipe = golden_pipeline("flux-schnell");
        Ok(pipe
            .parallel(Parallel::group(degrees, group))
            .unwrap_err()
            .to_string())
    });
    let message = &refused.expect("three ranks")[0];
    assert!(
        message.contains("data 2") && message.contains("there are 3 ranks"),
        "{message}"
    );
}

/// Stops or panics after the first step.
struct After(bool);

impl Observer for After {
    fn step_end(&mut self, _: &StepEnd<'_>) -> ControlFlow<()> {
        assert!(!self.0, "the observer broke");
        ControlFlow::Break(())
    }
}

/// Fails with an error of its own at the second step's latents.
struct FullDisk;

impl Observer for FullDisk {
    fn wants_tensors(&self) -> bool {
        true
    }

    fn tensor(
        &mut self,
        name: &str,
        _: &dyn Fn() -> xdit_models::Result<Tensor>,
    ) -> xdit_models::Result<()> {
        match name {
            "step.1.latents" => Err(Error::other(io::Error::from(io::ErrorKind::StorageFull))),
            _ => Ok(()),
        }
    }
}

#[test]
fn an_error_of_the_observer_comes_back_as_it_is() {
    let request = Request::new("a")
        .height(32)
        .width(32)
        .num_inference_steps(3);
    for plan in [sequence(1, 1), sequence(2, 2)] {
        let pipe = over(golden_pipeline("flux-schnell"), plan);
        let error = pipe.generate(&request, &mut FullDisk).unwrap_err();
        assert_eq!(error.category(), ErrorCategory::Other, "{plan}: {error}");
        let cause = std::iter::successors(std::error::Error::source(&error), |e| e.source()).last();
        let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }
}

#[test]
fn an_observer_stops_all_ranks() {
    let pipe = over(golden_pipeline("flux-schnell"), sequence(2, 2));
    let request = Request::new(["a"])
        .height(32)
        .width(32)
        .num_inference_steps(3);
    let error = pipe.generate(&request, &mut After(false)).unwrap_err();
    assert_eq!(error.category(), ErrorCategory::Stopped);
    let error = pipe.generate(&request, &mut After(true)).unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("rank 0 (ring 0, ulysses 0): ")
            && message.contains("the observer broke")
            && !message.contains('\n'),
        "{message}"
    );
    // The pipeline is as good as new.
    draw(&pipe, &request);
}

/// The latents that each step ends with, for an observer that asks for them or not.
struct Follows(bool, Vec<Option<Vec<f32>>>);

impl Observer for Follows {
    fn wants_latents(&self) -> bool {
        self.0
    }

    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        self.1.push(
            step.latents
                .map(|latents| latents.to_vec_blocking::<f32>().unwrap()),
        );
        ControlFlow::Continue(())
    }
}

#[test]
fn latents_are_shown_to_who_follows_them() {
    let mut pipe = golden_pipeline("flux-schnell");
    let request = Request::new(["a"])
        .height(48)
        .width(32)
        .num_inference_steps(3);
    for plan in [Degrees::default(), sequence(2, 2)] {
        pipe = over(pipe, plan);
        let [mut follows, mut ignores] = [true, false].map(|wants| Follows(wants, Vec::new()));
        let output = pipe.generate(&request, &mut follows).unwrap();
        pipe.generate(&request, &mut ignores).unwrap();
        let shown: Vec<_> = follows.1.into_iter().flatten().collect();
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2], output.latents.to_vec_blocking::<f32>().unwrap());
        assert!(shown[0] != shown[1]);
        assert_eq!(ignores.1, [None, None, None]);
    }
}
