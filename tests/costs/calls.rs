//! Makes many calls on one pipeline, with mixed plans and sizes, some of which fail: nothing may grow, and no picture may
//! change. This file is a process with one test, so that its threads, bytes and open files are those of the calls.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use xdit_kernels::Tensor;
use xdit_models::{
    Degrees, Error, ErrorCategory, LoadOptions, ModelSource, Observer, Parallel, PipeFusion,
    Pipeline, Request, StepEnd,
};
use xdit_tests::goldens::path;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What this process has now.
#[derive(Clone, Copy, Debug)]
struct Held {
    threads: usize,
    files: usize,
    bytes: usize,
}

impl Held {
    fn now() -> Self {
        let count = |folder| std::fs::read_dir(folder).expect("/proc is there").count();
        Self {
            threads: count("/proc/self/task"),
            files: count("/proc/self/fd"),
            bytes: ALLOCATED.current_usage(),
        }
    }

    fn within(self, limit: Self) -> bool {
        self.threads <= limit.threads && self.files <= limit.files && self.bytes <= limit.bytes
    }
}

/// Queues of messages and of thread pools grow a little where ranks happen to run far apart: less than a kilobyte for each of
/// the 480 calls.
const SLACK: usize = 256 << 10;

fn over(degrees: Degrees) -> Parallel {
    Parallel::threads(degrees)
}

/// A few plans, of one to four ranks.
fn plans() -> Vec<Parallel> {
    let one = Degrees::default();
    vec![
        over(Degrees { ulysses: 2, ..one }),
        over(Degrees {
            ulysses: 2,
            ring: 2,
            ..one
        }),
        over(one),
        over(Degrees { pipe: 2, ..one })
            .pipefusion(PipeFusion::default().patches(2).warmup_steps(1)),
        over(Degrees { cfg: 2, ..one }),
        over(Degrees { ring: 3, ..one }),
        over(Degrees {
            data: 2,
            pipe: 2,
            ..one
        })
        .pipefusion(PipeFusion::default().max_drift(0.5)),
    ]
}

fn request(size: usize) -> Request {
    let (height, width) = [(32, 32), (48, 32), (32, 64)][size];
    Request::new(["a red circle", "a blue square"])
        .negative_prompt(["green"; 2])
        .true_cfg_scale(2.0)
        .height(height)
        .width(width)
        .num_inference_steps(2)
        .max_sequence_length(5)
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Cancelled,
    Panic,
    Error,
    Deadline,
}

/// Makes the rank that it watches fail in the first step.
struct Fails(Failure);

impl Observer for Fails {
    fn step_end(&mut self, _: &StepEnd<'_>) -> ControlFlow<()> {
        match self.0 {
            Failure::Cancelled => ControlFlow::Break(()),
            // As a panic, without the message on stderr.
            Failure::Panic => std::panic::resume_unwind(Box::new("injected".to_owned())),
            _ => ControlFlow::Continue(()),
        }
    }

    fn wants_tensors(&self) -> bool {
        self.0 == Failure::Error
    }

    fn tensor(
        &mut self,
        name: &str,
        _: &dyn Fn() -> xdit_models::Result<Tensor>,
    ) -> xdit_models::Result<()> {
        match name.starts_with("step.") {
            true => Err(Error::OutOfMemory {
                what: "a test".into(),
                bytes: 7,
                available: None,
                cure: String::new(),
            }),
            false => Ok(()),
        }
    }
}

fn fail(pipe: &Pipeline, parallel: &Parallel, how: Failure) {
    let expected = match how {
        Failure::Cancelled => ErrorCategory::Stopped,
        Failure::Error => ErrorCategory::OutOfMemory,
        Failure::Panic | Failure::Deadline => ErrorCategory::RankLost,
    };
    let (parallel, request) = match how {
        // No rank can keep this one; it takes a moment of work to see it.
        Failure::Deadline => (
            parallel.clone().deadline(Duration::from_nanos(1)),
            request(0).height(256).width(256).num_inference_steps(50),
        ),
        _ => (parallel.clone(), request(0)),
    };
    let error = pipe
        .generate_over(&request, &parallel, &mut Fails(how))
        .expect_err("it fails");
    assert_eq!(error.category(), expected, "{how:?}: {error}");
}

#[test]
fn nothing_grows_and_a_failed_call_does_not_matter() {
    let source = ModelSource::folder(path("pipelines/flux-dev")).expect("a golden pipeline");
    let options = LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    };
    let pipe = Pipeline::load(&source, &options, &mut ()).expect("a pipeline");
    let plans = plans();
    let kinds = [
        Failure::Cancelled,
        Failure::Panic,
        Failure::Error,
        Failure::Deadline,
    ];
    let mut pictures: BTreeMap<(usize, usize), Vec<u8>> = BTreeMap::new();
    let mut limit = None;
    for call in 0..500 {
        // All plans and sizes come by in the first 21 calls, and every plan after every other.
        let (plan, size) = (call * (1 + call / 21) % plans.len(), call % 3);
        if call % 10 == 4 {
            fail(&pipe, &plans[call / 10 % 2], kinds[call / 10 % 4]);
        }
        let output = pipe
            .generate_over(&request(size), &plans[plan], &mut ())
            .unwrap_or_else(|error| panic!("call {call}, plan {plan}: {error}"));
        let float = output.float.expect("pictures");
        let bytes = float
            .host_bytes_blocking()
            .expect("pictures on the host")
            .to_vec();
        let first = pictures
            .entry((plan, size))
            .or_insert_with(|| bytes.clone());
        assert!(*first == bytes, "call {call}, plan {plan}");
        drop((bytes, float));
        if call == 20 {
            let held = Held::now();
            println!("after {call} calls: {held:?}");
            limit = Some(Held {
                bytes: held.bytes + SLACK,
                ..held
            });
        }
    }
    // Threads end, and let go what they hold, in their own time.
    let (limit, start) = (limit.expect("500 calls"), Instant::now());
    while !Held::now().within(limit) {
        let held = Held::now();
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{held:?}, where {limit:?} is the limit"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("after 500 calls: {:?}", Held::now());
}
