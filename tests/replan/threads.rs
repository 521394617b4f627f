//! Ranks that are threads: any rank is lost at any step, and the pictures are those of a call that loses none.

use std::time::Duration;

use xdit_kernels::{DType, Device};
use xdit_models::{
    Degrees, Error, LoadOptions, MeshOrder, Observer, OnRankLoss, Output, OutputType, Parallel,
    PipeFusion, Pipeline, Request,
};
use xdit_tests::golden_run::load;
use xdit_tests::goldens::{max_abs, values};
use xdit_tests::over_ranks::SAME;
use xdit_tests::recorded::source;

use crate::faults::{Armed, At, How, LOST};
use crate::{STEPS, families, float};

#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn warning(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Loses rank 0 at step 4, when rank 2 has been lost.
struct Losing<'a> {
    armed: &'a Armed,
    warnings: Vec<String>,
}

impl Observer for Losing<'_> {
    fn warning(&mut self, text: &str) {
        if self.warnings.is_empty() {
            self.armed.lose(0, At::Step(4), How::Panics);
        }
        self.warnings.push(text.to_owned());
    }
}

/// `[data, cfg, pipe, ring, ulysses]`.
fn degrees([data, cfg, pipe, ring, ulysses]: [usize; 5]) -> Degrees {
    Degrees {
        data,
        cfg,
        pipe,
        ring,
        ulysses,
        order: MeshOrder::USUAL,
    }
}

/// One patch: the plans are exact.
fn exact() -> PipeFusion {
    PipeFusion::default().patches(1)
}

fn over(axes: [usize; 5], options: PipeFusion) -> Parallel {
    Parallel::threads(degrees(axes)).pipefusion(options)
}

fn draw(pipe: &Pipeline, request: &Request, parallel: &Parallel) -> (Output, Vec<String>) {
    let mut seen = Warnings::default();
    let output = pipe.generate_over(request, parallel, &mut seen);
    (output.expect("pictures"), seen.0)
}

/// Loses each of `ranks` at each step and when it decodes.
fn every_loss(
    pipe: &Pipeline,
    request: &Request,
    armed: &Armed,
    parallel: Parallel,
    ranks: impl Fn(usize) -> Vec<usize>,
    check: impl Fn(usize, &Output),
) {
    let decodes = request.output == OutputType::Image;
    let plan = parallel.degrees;
    let parallel = parallel.on_rank_loss(OnRankLoss::Replan);
    let points = (0..STEPS as u64).map(At::Step);
    let points = points.chain(decodes.then_some(At::Decode));
    for (index, at) in points.enumerate() {
        for rank in ranks(index) {
            armed.lose(rank, at, How::Panics);
            let (output, warnings) = draw(pipe, request, &parallel);
            let text = format!("{plan}, rank {rank}, {at:?}");
            assert!(armed.happened(), "{text}");
            let [before, after] = &output.parts[..] else {
                panic!("{text}: {:?}", output.parts);
            };
            let lost = before.lost.as_ref().expect("a lost rank");
            assert!(
                lost.rank.starts_with(&format!("rank {rank}")),
                "{text}: {lost:?}"
            );
            assert_eq!(lost.reason, format!("panicked: {LOST}"));
            let degrees = [before, after].map(|part| part.plan.degrees);
            assert_eq!(degrees, [plan, output.plan.degrees]);
            assert!(
                degrees[1].product() < plan.product(),
                "{text}: {}",
                degrees[1]
            );
            assert!(
                warnings.iter().any(|warning| warning.contains("was lost")),
                "{text}"
            );
            check(index, &output);
        }
    }
}

/// Plans of one patch, and the degrees that follow the loss of a rank.
const EXACT: [([usize; 5], [usize; 5]); 7] = [
    ([1, 1, 1, 1, 3], [1, 1, 1, 1, 2]),
    ([1, 1, 1, 4, 1], [1, 1, 1, 3, 1]),
    ([1, 1, 1, 2, 2], [1, 1, 1, 1, 3]),
    ([1, 1, 3, 1, 1], [1, 1, 2, 1, 1]),
    ([1, 2, 1, 1, 1], [1, 1, 1, 1, 1]),
    ([3, 1, 1, 1, 1], [2, 1, 1, 1, 1]),
    ([2, 1, 2, 1, 1], [1, 1, 3, 1, 1]),
];

#[test]
fn exact_plans_continue_exactly() {
    let armed = Armed::new();
    for (family, request) in families() {
        let (pipe, _) = load(family, DType::F32, &Device::cpu());
        let request = request.output(OutputType::Latent);
        for (axes, then) in EXACT {
            let parallel = over(axes, exact());
            let (whole, warnings) = draw(&pipe, &request, &parallel);
            assert_eq!(warnings, [""; 0]);
            assert_eq!(whole.parts.len(), 1);
            let count = whole.plan.ranks.len();
            // A different rank for each step, all of them in turn.
            let rank = |index: usize| vec![(index + axes[3]) % count];
            every_loss(&pipe, &request, &armed, parallel, rank, |index, output| {
                let off = max_abs(&values(&output.latents), &values(&whole.latents));
                assert!(off <= SAME, "{family}, {axes:?}, {index}: {off:e}");
                // Stages, replicas and branches change no sum.
                if axes[3] * axes[4] == 1 {
                    assert_eq!(off, 0.0, "{family}, {axes:?}, {index}");
                }
                let first = output.parts[1].first_step();
                // Replicas run at their own pace, and the pictures of a lost one may be at an earlier step.
                assert!(
                    first <= index && (axes[0] > 1 || first + 1 >= index),
                    "{first}, {index}"
                );
                assert_eq!(output.plan.degrees, degrees(then), "{family}, {axes:?}");
            });
        }
    }
}

#[test]
fn every_rank_of_a_hybrid_plan_may_be_lost_at_every_step() {
    let armed = Armed::new();
    let (family, request) = &families()[1];
    let (pipe, _) = load(family, DType::F32, &Device::cpu());
    let parallel = over([1, 2, 2, 1, 1], exact());
    let (whole, _) = draw(&pipe, request, &parallel);
    every_loss(
        &pipe,
        request,
        &armed,
        parallel,
        |_| (0..4).collect(),
        |index, output| {
            let off = max_abs(&float(output), &float(&whole));
            assert!(off <= SAME, "{index}: {off:e}");
            let first = output.parts[1].first_step();
            // In an exact plan all stages wait for each other in each step.
            assert_eq!(first, index);
        },
    );
}

#[test]
fn patches_continue_and_other_limits_hold() {
    let armed = Armed::new();
    let (family, request) = &families()[0];
    let (pipe, _) = load(family, DType::F32, &Device::cpu());
    let options = PipeFusion::default().patches(2).max_drift(0.5);
    let parallel = over([1, 1, 2, 1, 2], options.clone());
    every_loss(
        &pipe,
        request,
        &armed,
        parallel,
        |index| vec![index % 4],
        |index, output| {
            assert_eq!(output.images.len(), 3, "{index}");
            let first = output.parts[1].first_step();
            if first < STEPS {
                assert_eq!(
                    output.pipefusion[0].whole[0], first,
                    "a whole step comes first"
                );
            }
        },
    );
    // Ranks are lost one after another, down to the last one.
    let parallel = over([1, 1, 1, 3, 1], exact()).on_rank_loss(OnRankLoss::Replan);
    let mut losing = Losing {
        armed: &armed,
        warnings: Vec::new(),
    };
    let whole = float(&draw(&pipe, request, &over([1, 1, 1, 3, 1], exact())).0);
    armed.lose(2, At::Step(1), How::Panics);
    let output = pipe.generate_over(request, &parallel, &mut losing);
    let output = output.expect("pictures");
    assert!(max_abs(&float(&output), &whole) <= SAME);
    let parts = output
        .parts
        .iter()
        .map(|part| (part.plan.degrees.ring, part.first_step()));
    assert_eq!(parts.collect::<Vec<_>>(), [(3, 0), (2, 1), (1, 4)]);
    assert_eq!(
        losing.warnings,
        [
            "rank 2 (ring 2) was lost at step 2 of 6: panicked: lost by a test; continuing with 2 ranks: ring 2",
            "rank 0 (ring 0) was lost at step 5 of 6: panicked: lost by a test; continuing with 1 rank",
        ]
    );
}

#[test]
fn a_rank_that_stops_is_lost_after_its_deadline() {
    let armed = Armed::new();
    let (family, request) = &families()[0];
    let (pipe, _) = load(family, DType::F32, &Device::cpu());
    let parallel = over([1, 1, 1, 1, 2], exact()).on_rank_loss(OnRankLoss::Replan);
    let (whole, _) = draw(&pipe, request, &parallel);
    armed.lose(1, At::Step(3), How::Stops);
    // Long enough for the other rank on a busy machine.
    let parallel = parallel.deadline(Duration::from_secs(5));
    let (output, warnings) = draw(&pipe, request, &parallel);
    assert!(max_abs(&float(&output), &float(&whole)) <= SAME);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.starts_with("rank 1 (ulysses 1) was lost at step 4 of 6: no progress for "),
        "{warning}"
    );
    assert!(warning.ends_with("; continuing with 1 rank"), "{warning}");
}

#[test]
fn other_failures_end_the_call() {
    /// Panics at a step.
    struct Broken;
    impl Observer for Broken {
        fn step_end(&mut self, step: &xdit_models::StepEnd<'_>) -> std::ops::ControlFlow<()> {
            assert!(step.index < 2, "{LOST}");
            std::ops::ControlFlow::Continue(())
        }
    }
    let armed = Armed::new();
    let (family, request) = &families()[0];
    let (pipe, _) = load(family, DType::F32, &Device::cpu());
    let parallel = over([1, 1, 1, 1, 2], exact());
    let replans = parallel.clone().on_rank_loss(OnRankLoss::Replan);
    let fails = |parallel: &Parallel, observer: &mut dyn Observer| {
        let drawn = pipe.generate_over(request, parallel, observer);
        drawn.expect_err("a failure")
    };
    let error = fails(&replans, &mut Broken);
    assert!(error.lost_ranks().is_empty(), "{error}");
    // Without the option, a lost rank ends the call.
    armed.lose(1, At::Step(2), How::Panics);
    let error = fails(&parallel, &mut ());
    assert_eq!(
        error.to_string(),
        "rank 1 (ulysses 1): panicked: lost by a test"
    );
    assert_eq!(error.lost_ranks(), [1]);
    assert!(matches!(error, Error::Rank { .. }));
    draw(&pipe, request, &parallel);
}

#[test]
fn degrees_that_would_change_the_image_are_not_chosen() {
    let (family, request) = &families()[0];
    let (pipe, _) = load(family, DType::F32, &Device::cpu());
    let nearest = |axes, options: PipeFusion, ranks| {
        let parallel = over(axes, options);
        let plan = Pipeline::plan(&source(family), &LoadOptions::default(), request, &parallel);
        let nearest = pipe.nearest_degrees(&plan.expect("a plan"), ranks);
        nearest.map(|d| [d.data, d.cfg, d.pipe, d.ring, d.ulysses])
    };
    // By default there are as many patches as stages: four become three, and both plans are inexact.
    let default = PipeFusion::default;
    assert_eq!(
        nearest([1, 1, 4, 1, 1], default(), 3),
        Some([1, 1, 3, 1, 1])
    );
    assert_eq!(
        nearest([1, 2, 1, 1, 4], default(), 7),
        Some([1, 1, 1, 1, 7])
    );
    // There are three images.
    assert_eq!(
        nearest([4, 2, 1, 1, 1], default(), 5),
        Some([1, 1, 1, 1, 5])
    );
    assert_eq!(nearest([1, 1, 1, 1, 2], default(), 0), None);
    let counted = exact().stages(xdit_models::StageSplit::Blocks(vec![2, 2, 1]));
    assert_eq!(nearest([1, 1, 3, 1, 1], counted, 2), Some([1, 1, 2, 1, 1]));
}
