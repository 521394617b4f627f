//! The measurement of the drift, and its effect with a limit.

use crate::naive::{Outcome, simulate};
use crate::run::{Done, Groups, Model, Plan, comm_error, distance, no_hooks, on_rank, on_threads};
use crate::toy::noise;
use xdit_comm::threads;

const PLAN: Plan = Plan {
    stages: 1,
    patches: 3,
    steps: 8,
    warmup_steps: 0,
    max_drift: None,
    model: Model::Straight,
};

fn compare(plan: &Plan, done: &[Done], want: &Outcome) {
    for Done { report, .. } in done {
        assert_eq!(report.refreshed, want.refreshed, "{plan:?}");
        assert_eq!(report.whole, want.whole, "{plan:?}");
        assert_eq!(report.drift.len(), plan.steps);
        for (step, (got, want)) in report.drift.iter().zip(&want.drift).enumerate() {
            match (got, want) {
                (None, None) => {}
                // Sums of f32 squares, exchanged as f32; the values themselves agree to 1e-6.
                (Some(got), Some(want)) => {
                    let off = (f64::from(*got) / want - 1.0).abs();
                    assert!(off <= 1e-4, "{plan:?}, step {step}: {got} for {want}");
                }
                other => panic!("{plan:?}, step {step}: {other:?}"),
            }
        }
    }
    let last = &done[plan.end()];
    let off = distance(&last.latents, &want.images[plan.steps - 1]);
    assert!(off <= 1e-6, "{plan:?}: {off:e}");
}

#[test]
fn drift_is_that_of_the_simulation() {
    for patches in [1, 2, 3, 5] {
        for warmup_steps in [0, 2, 8] {
            for (model, stages) in Model::all() {
                let plan = Plan {
                    patches,
                    warmup_steps,
                    stages,
                    model,
                    ..PLAN
                };
                let want = simulate(&plan, &noise(1));
                let measured = want.drift.iter().flatten().count();
                assert_eq!(measured, if patches == 1 { 0 } else { plan.steps - 1 });
                compare(&plan, &on_threads(&plan, 1), &want);
            }
        }
    }
}

#[test]
fn no_drift_is_low_enough_for_a_limit_of_zero() {
    for (model, stages) in Model::all() {
        for (warmup_steps, refreshed) in [(0, 3..8), (2, 3..8), (5, 5..8), (8, 8..8)] {
            let plan = Plan {
                model,
                stages,
                warmup_steps,
                max_drift: Some(0.0),
                ..PLAN
            };
            let done = on_threads(&plan, 1);
            // Step 1 measures the first drift; step 3 is the first that can know it.
            assert_eq!(done[0].report.refreshed, refreshed.collect::<Vec<_>>());
            compare(&plan, &done, &simulate(&plan, &noise(1)));
        }
    }
}

#[test]
fn no_drift_is_above_infinity() {
    for (model, stages) in Model::all() {
        let free = Plan {
            model,
            stages,
            ..PLAN
        };
        let watched = Plan {
            max_drift: Some(f32::INFINITY),
            ..free
        };
        // The values, the drift of each step, and that no step was refreshed: to the last bit.
        assert_eq!(on_threads(&watched, 1), on_threads(&free, 1));
    }
}

#[test]
fn a_limit_in_between_refreshes_some_steps() {
    let drift = simulate(&PLAN, &noise(1)).drift;
    let mut sorted: Vec<f64> = drift.into_iter().flatten().collect();
    sorted.sort_by(f64::total_cmp);
    // Half way between two, so that the last bits of a drift decide nothing.
    let limit = 0.5 * (sorted[sorted.len() - 2] + sorted[sorted.len() - 1]);
    for stages in 1..=4 {
        let plan = Plan {
            stages,
            max_drift: Some(limit as f32),
            ..PLAN
        };
        let want = simulate(&plan, &noise(1));
        assert!((1..5).contains(&want.refreshed.len()), "{want:?}");
        compare(&plan, &on_threads(&plan, 1), &want);
    }
}

#[test]
fn one_patch_has_no_drift_to_watch() {
    let plan = Plan {
        stages: 2,
        patches: 1,
        max_drift: Some(0.0),
        ..PLAN
    };
    for done in on_threads(&plan, 1) {
        assert_eq!(done.report.drift, [None; 8]);
        assert_eq!(done.report.refreshed, []);
    }
}

#[test]
fn ranks_beside_the_stages_decide_with_them() {
    // Two copies of each stage, as the ranks of sequence parallelism are: sums of both, so the same drift.
    for max_drift in [None, Some(0.0)] {
        let plan = Plan {
            stages: 2,
            max_drift,
            ..PLAN
        };
        let want = simulate(&plan, &noise(1));
        let done = threads::run(4, move |world| {
            let pipe = Some(world.split(world.rank() % 2, world.rank())?);
            let replica = Some(world);
            on_rank(&plan, 1, Groups { pipe, replica }, no_hooks(), 0).map_err(comm_error)
        });
        let done = done.expect("no rank fails");
        for copy in 0..2 {
            let stages = [copy, 2 + copy].map(|rank| done[rank].clone());
            compare(&plan, &stages, &want);
        }
    }
}
