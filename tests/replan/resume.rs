//! Calls that end early and continue from what their finished steps left.

use std::ops::ControlFlow;

use xdit_kernels::{DType, Device};
use xdit_models::{
    Checkpoint, Degrees, Error, LoadOptions, MeshOrder, Observer, Output, OutputType, Parallel,
    PipeFusion, Pipeline, Request, StepEnd,
};
use xdit_tests::golden_run::load;
use xdit_tests::goldens::{max_abs, values};
use xdit_tests::over_ranks::SAME;
use xdit_tests::recorded::source;

use crate::faults::Armed;
use crate::{STEPS, families, float, small};

/// Ends a call after so many steps.
struct Until(usize);

impl Observer for Until {
    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        match step.index + 1 < self.0 {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

/// Counts the prompts that are encoded, and collects the steps that end.
#[derive(Default)]
struct Seen {
    encoded: usize,
    steps: Vec<usize>,
}

impl Observer for Seen {
    fn phase(&mut self, phase: xdit_models::Phase, event: xdit_models::PhaseEvent) {
        if let (xdit_models::Phase::Encode, xdit_models::PhaseEvent::Advance { .. }) =
            (phase, event)
        {
            self.encoded += 1;
        }
    }

    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        self.steps.push(step.index);
        ControlFlow::Continue(())
    }
}

fn on(degrees: Degrees, options: PipeFusion) -> Parallel {
    Parallel::threads(degrees).pipefusion(options)
}

/// Executes a request of a golden pipeline on these ranks, continuing with a checkpoint.
fn run(
    (pipe, family): (Pipeline, &str),
    request: &Request,
    parallel: &Parallel,
    checkpoint: &Checkpoint,
    observer: &mut dyn Observer,
) -> (Pipeline, Result<Output, Error>) {
    let pipe = pipe.parallel(parallel.clone()).expect("legal ranks");
    let plan = Pipeline::plan(&source(family), &LoadOptions::default(), request, parallel);
    let drawn = plan.and_then(|plan| pipe.run_from(plan, checkpoint, observer));
    (pipe, drawn)
}

const ONE: Degrees = Degrees {
    data: 1,
    cfg: 1,
    pipe: 1,
    ring: 1,
    ulysses: 1,
    order: MeshOrder::USUAL,
};

#[test]
fn a_call_continues_to_the_bit_after_any_step() {
    let _alone = Armed::new();
    let schedulers = [
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerDiscreteScheduler",
        "DDIMScheduler",
    ];
    let hunyuan = families()[2].1.clone();
    let requests = schedulers.map(|name| ("hunyuan-v1.2", hunyuan.clone().scheduler(name)));
    let others = families().into_iter().take(2);
    for (family, request) in others.chain(requests) {
        let request = request.output(OutputType::Latent);
        let (mut pipe, _) = load(family, DType::F32, &Device::cpu());
        for degrees in [
            ONE,
            Degrees { pipe: 2, ..ONE },
            Degrees { ulysses: 2, ..ONE },
        ] {
            let parallel = on(degrees, PipeFusion::default().patches(1));
            let (back, whole) = run(
                (pipe, family),
                &request,
                &parallel,
                &Checkpoint::new(),
                &mut (),
            );
            pipe = back;
            let whole = values(&whole.expect("latents").latents);
            for finished in 1..=STEPS {
                let (checkpoint, mut seen) = (Checkpoint::new(), Seen::default());
                let until = &mut Until(finished);
                let (back, ended) = run((pipe, family), &request, &parallel, &checkpoint, until);
                assert!(matches!(ended, Err(Error::Stopped { step }) if step == finished));
                // Another rank of the process may have kept the last step already.
                let kept = checkpoint.finished_steps();
                let text = format!("{family}, {degrees}, {finished}: {kept}");
                assert!(
                    kept == finished || kept + 1 == STEPS && finished == STEPS,
                    "{text}"
                );
                let (back, drawn) =
                    run((back, family), &request, &parallel, &checkpoint, &mut seen);
                pipe = back;
                let drawn = drawn.expect("latents");
                assert!(values(&drawn.latents) == whole, "{text}");
                assert_eq!((seen.encoded, seen.steps), (0, (kept..STEPS).collect()));
                assert_eq!(drawn.parts.len(), 2);
                assert_eq!(drawn.parts[1].first_step(), kept);
                // A finished call has nothing left to do but decode.
                let (back, again) = run(
                    (pipe, family),
                    &request,
                    &parallel,
                    &checkpoint,
                    &mut Until(0),
                );
                pipe = back;
                assert!(values(&again.expect("latents").latents) == whole);
            }
        }
    }
}

#[test]
fn patches_warm_up_again() {
    let _alone = Armed::new();
    let request = small("a red circle").max_sequence_length(9);
    let (pipe, _) = load("flux-dev", DType::F32, &Device::cpu());
    let options = PipeFusion::default().patches(2).warmup_steps(2);
    let stages = |pipe| on(Degrees { pipe, ..ONE }, options.clone());
    let (pipe, whole) = run(
        (pipe, "flux-dev"),
        &request,
        &stages(2),
        &Checkpoint::new(),
        &mut (),
    );
    let checkpoint = Checkpoint::new();
    let (pipe, _) = run(
        (pipe, "flux-dev"),
        &request,
        &stages(2),
        &checkpoint,
        &mut Until(3),
    );
    let (pipe, after) = run(
        (pipe, "flux-dev"),
        &request,
        &stages(2),
        &checkpoint,
        &mut (),
    );
    let (whole, after) = (whole.expect("pictures"), after.expect("pictures"));
    assert_eq!(whole.pipefusion[0].whole, [0, 1]);
    let report = &after.pipefusion[0];
    assert_eq!(
        (&report.whole[..], report.drift.len()),
        (&[3, 4][..], STEPS)
    );
    assert_eq!(report.drift[..4], [None; 4]);
    assert!(report.drift[4].is_some() && report.drift[5].is_some());
    // Both differ from the exact image: steps are stale in both.
    let exact = on(ONE, PipeFusion::default().patches(1));
    let (_, exact) = run(
        (pipe, "flux-dev"),
        &request,
        &exact,
        &Checkpoint::new(),
        &mut (),
    );
    let exact = float(&exact.expect("pictures"));
    let [stale, fresher] = [&whole, &after].map(|of| max_abs(&float(of), &exact));
    assert!(fresher > SAME && stale > SAME, "{fresher:e} {stale:e}");
}

#[test]
fn a_checkpoint_belongs_to_one_call() {
    let _alone = Armed::new();
    let request = small("a red circle").max_sequence_length(9);
    let (pipe, _) = load("flux-dev", DType::F32, &Device::cpu());
    let parallel = on(ONE, PipeFusion::default());
    let checkpoint = Checkpoint::new();
    let (pipe, _) = run(
        (pipe, "flux-dev"),
        &request,
        &parallel,
        &checkpoint,
        &mut Until(2),
    );
    let (_, other) = run(
        (pipe, "flux-dev"),
        &request.seed(1),
        &parallel,
        &checkpoint,
        &mut (),
    );
    let error = other.expect_err("another seed").to_string();
    assert!(
        error.starts_with("`checkpoint` = that of another call: must be"),
        "{error}"
    );
    assert_eq!(checkpoint.finished_steps(), 2);
}
