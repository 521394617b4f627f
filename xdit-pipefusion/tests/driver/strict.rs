//! The strict backend, which behaves like NCCL: the batches of a rank run one after another, and a receive blocks later ones.

use crate::run::{Done, Groups, Model, Plan, comm_error, no_hooks, on_rank, on_threads};
use std::time::{Duration, Instant};
use xdit_comm::strict::{StrictOptions, posting_ahead, run_each, unbatched};
use xdit_comm::{Error, Group, Result};
use xdit_pipefusion::Placement;

/// The plan of a seed: all models and numbers of stages in turn, the rest from the digits.
fn plan(seed: u64) -> Plan {
    let seed = seed as usize;
    let models: Vec<_> = Model::all().collect();
    let (model, stages) = models[seed % models.len()];
    let rest = seed / models.len() + seed;
    Plan {
        stages,
        model,
        patches: 1 + rest % 5,
        steps: 1 + rest / 5 % 4,
        warmup_steps: rest / 3 % 3,
        max_drift: [None, Some(0.0), Some(f32::INFINITY)][rest / 2 % 3],
    }
}

/// What each stage returns on the strict backend; `careless` may break its rule.
fn on_strict(plan: Plan, seed: u64, careless: fn(Group) -> Group) -> Vec<Result<Done>> {
    let options = StrictOptions {
        delay: Duration::from_micros(150),
        ..StrictOptions::seed(seed)
    };
    run_each(plan.stages, &options, move |group| {
        let pipe = Groups::stages(careless(group));
        on_rank(&plan, 1, pipe, no_hooks(), 0).map_err(comm_error)
    })
}

#[test]
fn two_hundred_seeds_give_what_threads_give() {
    for seed in 0..200 {
        let plan = plan(seed);
        let done = on_strict(plan, seed, |group| group);
        for (stage, (done, want)) in done.into_iter().zip(on_threads(&plan, 1)).enumerate() {
            let text = format!("seed {seed}, {plan:?}, stage {stage}");
            let done = done.unwrap_or_else(|error| panic!("{text}: {error}"));
            // To the last bit.
            assert_eq!(done.latents, want.latents, "{text}");
            assert_eq!(done.images, want.images, "{text}");
            assert_eq!(done.report.whole, want.report.whole, "{text}");
            assert_eq!(done.report.refreshed, want.report.refreshed, "{text}");
            assert_eq!(done.kept_bytes, want.kept_bytes, "{text}");
        }
    }
}

const PLANS: [Plan; 3] = [
    Plan {
        stages: 2,
        patches: 3,
        steps: 3,
        warmup_steps: 1,
        max_drift: None,
        model: Model::Straight,
    },
    Plan {
        stages: 3,
        patches: 4,
        steps: 3,
        warmup_steps: 0,
        max_drift: Some(f32::INFINITY),
        model: Model::UShaped(Placement::Linear),
    },
    Plan {
        stages: 3,
        patches: 4,
        steps: 3,
        warmup_steps: 0,
        max_drift: None,
        model: Model::UShaped(Placement::Folded),
    },
];

/// Every rank is told of the deadlock, soon.
fn is_stuck(plan: Plan, careless: fn(Group) -> Group) {
    let began = Instant::now();
    for outcome in on_strict(plan, 1, careless) {
        let error = outcome.expect_err("nobody can go on");
        assert!(matches!(error, Error::Deadlock(_)), "{plan:?}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("queue runs") && text.contains("needs rank"),
            "{text}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it is found, not waited for"
    );
}

#[test]
fn without_batches_the_pipeline_is_stuck() {
    PLANS.into_iter().for_each(|plan| is_stuck(plan, unbatched));
}

#[test]
fn with_receives_posted_ahead_the_pipeline_is_stuck() {
    PLANS
        .into_iter()
        .for_each(|plan| is_stuck(plan, posting_ahead));
}
