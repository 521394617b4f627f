//! Any number of stages produces the values of the algorithm.

use crate::naive::simulate;
use crate::run::{Groups, Model, Plan, distance, no_hooks, on_rank, on_threads};
use crate::toy::{CHANNELS, HIDDEN, IMAGE, TEXT, Toy, TwoStep, noise};
use xdit_kernels::{Device, Tensor};
use xdit_pipefusion::{Kept, Part, PatchPlan, Sampler, Stage, StagePlan, Turn};

const STEPS: usize = 5;

/// Of f32 attention and of sums in another order; the values differ by far more where a schedule is wrong
/// (`staleness_shows`).
const TOLERANCE: f64 = 1e-6;

fn plan(stages: usize, patches: usize, warmup_steps: usize) -> Plan {
    Plan {
        stages,
        patches,
        steps: STEPS,
        warmup_steps,
        max_drift: None,
        model: Model::Straight,
    }
}

#[test]
fn every_plan_is_the_naive_simulation() {
    for patches in [1, 2, 3, 5] {
        for warmup_steps in [0, 1, 2, STEPS, STEPS + 3] {
            // Of the straight model and of the U-shaped one.
            let mut firsts: [Option<Vec<Vec<f32>>>; 2] = [None, None];
            for (model, stages) in Model::all() {
                let plan = Plan {
                    model,
                    ..plan(stages, patches, warmup_steps)
                };
                let want = simulate(&plan, &noise(1));
                let done = on_threads(&plan, 1);
                let last = &done[plan.end()];
                assert_eq!(last.images.len(), STEPS);
                for (step, (got, want)) in last.images.iter().zip(&want.images).enumerate() {
                    let off = distance(got, want);
                    assert!(off <= TOLERANCE, "{plan:?}, step {step}: {off:e}");
                }
                assert_eq!(Some(&last.latents), last.images.last());
                // More stages compute the same sums in the same order.
                let first = &mut firsts[usize::from(model != Model::Straight)];
                let images = first.get_or_insert_with(|| last.images.clone());
                assert_eq!(images, &last.images, "{plan:?}");
            }
        }
    }
}

#[test]
fn staleness_shows() {
    let exact = simulate(&plan(1, 1, 0), &noise(1));
    let stale = simulate(&plan(1, 3, 0), &noise(1));
    let off = distance(&stale.images[STEPS - 1], &exact.images[STEPS - 1]);
    assert!(off >= 100.0 * TOLERANCE, "{off:e}");
}

#[test]
fn one_patch_on_one_stage_is_the_plain_loop() {
    let image = PatchPlan::new(1, IMAGE, 1).expect("one patch");
    let [blocks_hook, hook] = no_hooks();
    let stages = StagePlan::explicit(&[5], 5).expect("one stage");
    let mut model = Toy::new(image, stages, false, 0, &Kept::default(), blocks_hook);
    let images = Vec::new();
    let mut sampler = TwoStep { hook, images };
    let mut x =
        Tensor::from_slice(&noise(1), [1, IMAGE, CHANNELS], &Device::cpu()).expect("the noise");
    let mut state = None;
    for step in 0..STEPS {
        let part = Part::Whole;
        let turn = Turn { step, part };
        let hidden = model.embed(turn, std::slice::from_ref(&x)).expect("embeds");
        let hidden = model.blocks(turn, 0, hidden).expect("computes");
        let predictions = model.project(turn, hidden).expect("projects");
        x = sampler
            .step(turn, 0, &mut state, &predictions[0], &x)
            .expect("steps");
    }
    let alone =
        on_rank(&plan(1, 1, 0), 1, Groups::default(), no_hooks(), 0).expect("runs without a group");
    assert_eq!(alone.latents, x.to_vec_blocking::<f32>().unwrap());
    for patches in [2, 5] {
        // Warm-up to the end: exact, whatever the patches.
        let whole = on_rank(
            &plan(1, patches, STEPS),
            1,
            Groups::default(),
            no_hooks(),
            0,
        )
        .expect("runs");
        assert_eq!(whole.latents, alone.latents);
    }
}

#[test]
fn without_a_group_and_with_one_rank_are_the_same() {
    let plan = plan(1, 3, 1);
    let alone = on_rank(&plan, 1, Groups::default(), no_hooks(), 0).expect("runs");
    assert_eq!(on_threads(&plan, 1), [alone]);
}

#[test]
fn nothing_of_a_run_reaches_the_next() {
    for stages in [1, 3] {
        let plan = plan(stages, 3, 0);
        let first = on_threads(&plan, 1);
        on_threads(&plan, 2);
        assert_eq!(on_threads(&plan, 1), first);
    }
}

#[test]
fn no_steps_and_one_step() {
    for stages in [1, 2, 3] {
        for patches in [1, 2] {
            for max_drift in [None, Some(0.0)] {
                let steps = |steps| Plan {
                    steps,
                    max_drift,
                    ..plan(stages, patches, 0)
                };
                for done in on_threads(&steps(0), 1) {
                    assert_eq!(done.latents, noise(1));
                    assert_eq!((done.report.drift, done.images), (vec![], vec![]));
                }
                let want = simulate(&steps(1), &noise(1));
                let done = on_threads(&steps(1), 1);
                let off = distance(&done[stages - 1].latents, &want.images[0]);
                assert!(off <= TOLERANCE, "{off:e}");
                for done in done {
                    assert_eq!(done.report.drift, [None]);
                }
            }
        }
    }
}

#[test]
fn what_is_kept_is_keys_and_values_of_the_stages_layers() {
    let layer = 2 * (TEXT + IMAGE) * HIDDEN * size_of::<f32>();
    let bytes = |stages, patches| -> Vec<usize> {
        let done = on_threads(&plan(stages, patches, 0), 1);
        done.iter().map(|done| done.kept_bytes).collect()
    };
    assert_eq!(bytes(1, 3), [3 * layer]);
    // Blocks 0 and 1, then 2, then 3 and 4: the cut of least squares of 2 1 2 1 2.
    assert_eq!(bytes(3, 3), [layer; 3]);
}
