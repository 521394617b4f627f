//! A cancelled token ends loading, encoding, every step and decoding, on every rank, and leaves the pipeline as it was.

use std::time::{Duration, Instant};

use xdit_comm::threads;
use xdit_models::{
    CancelToken, Degrees, Error, ErrorCategory, LoadOptions, ModelSource, Observer, Output,
    Parallel, Phase, PhaseEvent, PipeFusion, Pipeline, Request,
};
use xdit_tests::goldens::path;

/// Cancels its token at an event, and counts the events of that phase that follow.
struct CancelAt {
    token: CancelToken,
    phase: Phase,
    /// After this many advances of the phase; at its start for 0.
    advances: usize,
    seen: usize,
    after: usize,
}

impl CancelAt {
    fn new(phase: Phase, advances: usize) -> Self {
        Self {
            token: CancelToken::new(),
            phase,
            advances,
            seen: 0,
            after: 0,
        }
    }
}

impl Observer for CancelAt {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        self.after += usize::from(self.token.is_cancelled());
        if phase != self.phase {
            return;
        }
        self.seen += usize::from(matches!(event, PhaseEvent::Advance { .. }));
        if self.seen == self.advances {
            self.token.cancel();
        }
    }

    fn cancel_token(&self) -> CancelToken {
        self.token.clone()
    }
}

const STEPS: usize = 3;

fn source(name: &str) -> ModelSource {
    ModelSource::folder(path(&format!("pipelines/{name}"))).expect("a golden pipeline")
}

fn options() -> LoadOptions {
    LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    }
}

fn pipeline(name: &str) -> Pipeline {
    Pipeline::load(&source(name), &options(), &mut ()).expect("a pipeline")
}

/// Two images with guidance, so that every axis has work.
fn request(name: &str) -> Request {
    let request = Request::new(["a red circle", "a star"])
        .height(48)
        .width(32)
        .num_inference_steps(STEPS);
    match name {
        "flux-dev" => request.negative_prompt("green").true_cfg_scale(2.0),
        "hunyuan-v1.1" => request.use_resolution_binning(false).guidance_scale(4.0),
        _ => request.guidance_scale(4.0),
    }
}

/// One rank, one of each axis, and all axes together.
fn plans() -> Vec<Parallel> {
    let one = Degrees::default();
    let hybrid = Degrees {
        data: 2,
        cfg: 2,
        pipe: 2,
        ..one
    };
    [
        one,
        Degrees { ulysses: 2, ..one },
        Degrees { ring: 3, ..one },
        Degrees { pipe: 2, ..one },
        Degrees { cfg: 2, ..one },
        Degrees { data: 2, ..one },
        hybrid,
        Degrees {
            ulysses: 2,
            data: 1,
            ..hybrid
        },
    ]
    .into_iter()
    .map(|degrees| {
        let patches = if degrees.pipe > 1 { 2 } else { 1 };
        Parallel::threads(degrees)
            .pipefusion(PipeFusion::default().patches(patches).warmup_steps(1))
    })
    .collect()
}

fn bytes(output: &Output) -> Vec<Vec<u8>> {
    output
        .images
        .iter()
        .map(|image| image.rgb.clone())
        .collect()
}

/// Draws with `observer`, which cancels the call.
fn cancelled(pipe: &Pipeline, name: &str, parallel: &Parallel, observer: &mut CancelAt) {
    let began = Instant::now();
    let error = pipe
        .generate_over(&request(name), parallel, observer)
        .expect_err("a cancelled call");
    let at = format!("{name}, {}: {:?}", parallel.degrees, observer.phase);
    assert!(matches!(error, Error::Cancelled), "{at}: {error}");
    assert_eq!(error.category(), ErrorCategory::Stopped);
    // Far above the time of such a call, and far below the deadline of the ranks.
    assert!(began.elapsed() < Duration::from_secs(30), "{at}");
}

#[test]
fn loading_ends_at_the_next_tensor() {
    for name in ["flux-dev", "sd3-medium", "hunyuan-v1.1"] {
        let mut whole = CancelAt::new(Phase::Load, usize::MAX);
        Pipeline::load(&source(name), &options(), &mut whole).expect("a pipeline");
        for advances in [0, 1, whole.seen / 2] {
            let mut observer = CancelAt::new(Phase::Load, advances);
            let error = Pipeline::load(&source(name), &options(), &mut observer).unwrap_err();
            assert!(matches!(error, Error::Cancelled), "{name}: {error}");
            // The rest of the layer that was packed: its weight and its bias, or those that were fused into one.
            let more = observer.seen - advances;
            assert!(
                more <= 6 && observer.seen < whole.seen,
                "{name}: {more} more"
            );
        }
    }
    // A token that is cancelled before loads nothing.
    let token = CancelToken::new();
    token.cancel();
    let error = Pipeline::load(&source("flux-dev"), &options(), &mut token.clone()).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[test]
fn encoding_each_step_and_decoding_end_in_one_rank_and_in_all() {
    for name in ["flux-dev", "sd3-medium", "hunyuan-v1.1"] {
        let pipe = pipeline(name);
        let mut plans = plans();
        if name != "flux-dev" {
            // One rank, and a hybrid of two kinds of ranks and two stages.
            plans = vec![plans.swap_remove(0), plans.swap_remove(6)];
        }
        for parallel in plans {
            let draw = || pipe.generate_over(&request(name), &parallel, &mut ());
            let before = bytes(&draw().expect("images"));
            let at = format!("{name}, {}", parallel.degrees);
            for advances in [0, 1] {
                let mut observer = CancelAt::new(Phase::Encode, advances);
                cancelled(&pipe, name, &parallel, &mut observer);
                assert_eq!(observer.after, 0, "{at}: no encoder finishes");
            }
            for step in 0..STEPS {
                let mut observer = CancelAt::new(Phase::Denoise, step);
                cancelled(&pipe, name, &parallel, &mut observer);
                assert_eq!(observer.after, 0, "{at}: no step finishes");
            }
            let mut observer = CancelAt::new(Phase::Decode, 0);
            cancelled(&pipe, name, &parallel, &mut observer);
            assert_eq!(observer.after, 0, "{at}: no image is decoded");
            assert!(bytes(&draw().expect("images")) == before, "{at}");
        }
    }
}

#[test]
fn a_call_can_be_cancelled_at_any_time_from_another_thread() {
    let pipe = pipeline("flux-dev");
    let plans = plans();
    let (one, hybrid) = (&plans[0], &plans[6]);
    for parallel in [one, hybrid] {
        let draw = |token: &CancelToken| {
            let began = Instant::now();
            let result = pipe.generate_over(&request("flux-dev"), parallel, &mut token.clone());
            (result, began.elapsed())
        };
        let (whole, time) = draw(&CancelToken::new());
        let before = bytes(&whole.expect("images"));
        let mut ended = 0;
        for part in 0..12 {
            let token = CancelToken::new();
            let result = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(time * part / 12);
                    token.cancel();
                });
                draw(&token).0
            });
            match result {
                Ok(output) => assert!(bytes(&output) == before),
                Err(Error::Cancelled) => ended += 1,
                Err(error) => panic!("{}: {error}", parallel.degrees),
            }
        }
        assert!(ended > 0, "{}", parallel.degrees);
        let (after, _) = draw(&CancelToken::new());
        assert!(bytes(&after.expect("images")) == before);
    }
}

#[test]
fn ranks_of_the_callers_own_group_all_return_that_they_were_cancelled() {
    let degrees = Degrees {
        ulysses: 2,
        pipe: 2,
        ..Degrees::default()
    };
    let token = CancelToken::new();
    let shared = token.clone();
    let results = threads::run(4, move |group| {
        let mut observer = CancelAt::new(Phase::Denoise, 1);
        observer.token = shared.clone();
        let pipe = pipeline("flux-dev")
            .parallel(Parallel::group(degrees, group))
            .expect("a legal plan");
        let request = Request::new("a")
            .height(48)
            .width(32)
            .num_inference_steps(STEPS);
        let error = pipe.generate(&request, &mut observer);
        Ok(error.expect_err("a cancelled call").to_string())
    });
    let results = results.expect("four ranks");
    assert_eq!(results, vec!["the call was cancelled"; 4]);
    assert!(token.is_cancelled());
}
