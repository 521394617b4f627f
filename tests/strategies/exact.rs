//! Conditions that must not change the image: enough warm-up, earlier images, limits of drift.

use xdit_models::{Error, Request};
use xdit_tests::goldens::Recorder;

use crate::engine::{HYBRID, SAME, apart, draw, golden, latents, over, pipefusion, request};

#[test]
fn warm_up_to_the_end_is_serial() {
    let mut pipe = golden("flux-dev");
    let serial = latents(&pipe, &request());
    for stages in 1..=5 {
        for patches in [1, 2, 4, 9] {
            for warmup in [4, 7, usize::MAX] {
                pipe = over(pipe, [1, stages, 1, 1], pipefusion(patches, warmup));
                let distance = apart(&latents(&pipe, &request()), &serial);
                // Only the order of sums may differ; without ring and Ulysses it does not.
                assert!(
                    distance <= SAME,
                    "N {stages}, M {patches}, W {warmup}: {distance:.2e}"
                );
            }
        }
    }
    for plan in [[1, 2, 2, 1], [1, 3, 1, 2], [1, 1, 2, 2]] {
        pipe = over(pipe, plan, pipefusion(4, 4));
        let distance = apart(&latents(&pipe, &request()), &serial);
        assert!(distance <= SAME, "{plan:?}: {distance:.2e}");
    }
    // A drift that no step may have: only the first step has nothing to compare, and the next two know nothing yet.
    pipe = over(pipe, [1, 2, 1, 1], pipefusion(3, 3).max_drift(0.0));
    let output = draw(&pipe, &request());
    assert_eq!(output.pipefusion[0].whole, [0, 1, 2, 3]);
    assert_eq!(output.pipefusion[0].refreshed, [3]);
    assert!(apart(&output.latents.to_vec_blocking::<f32>().unwrap(), &serial) <= SAME);
    // One that every step may have changes nothing.
    pipe = over(pipe, [1, 2, 1, 1], pipefusion(3, 1));
    let without = draw(&pipe, &request());
    pipe = over(pipe, [1, 2, 1, 1], pipefusion(3, 1).max_drift(f32::MAX));
    let with = draw(&pipe, &request());
    assert!(with.pipefusion[0].refreshed.is_empty());
    assert_eq!(
        with.latents.host_bytes_blocking().unwrap(),
        without.latents.host_bytes_blocking().unwrap()
    );
}

#[test]
fn nothing_of_an_image_reaches_the_next() {
    let other = || {
        Request::new(["a green star"; 2])
            .seed(7)
            .height(144)
            .width(80)
            .num_inference_steps(4)
            .max_sequence_length(13)
            .output(xdit_models::OutputType::Latent)
    };
    let apply = |pipe| over(pipe, [1, 2, 1, 2], pipefusion(3, 0));
    let alone = draw(&apply(golden("flux-dev")), &request());
    let pipe = apply(golden("flux-dev"));
    draw(&pipe, &other());
    let after = draw(&pipe, &request());
    assert_eq!(
        after.latents.host_bytes_blocking().unwrap(),
        alone.latents.host_bytes_blocking().unwrap()
    );
    assert_eq!(after.pipefusion, alone.pipefusion);
    assert_eq!(after.memory, alone.memory);
}

#[test]
fn stages_do_not_change_the_image() {
    use xdit_models::StageSplit;
    let mut pipe = over(golden("flux-dev"), [1, 1, 1, 1], pipefusion(4, 1));
    let one = latents(&pipe, &request());
    let splits = [
        StageSplit::Flops,
        StageSplit::Memory,
        StageSplit::Blocks(vec![1, 1, 3]),
        StageSplit::Blocks(vec![3, 1, 1]),
        StageSplit::Blocks(vec![1, 3, 1]),
    ];
    for split in splits {
        pipe = over(pipe, [1, 3, 1, 1], pipefusion(4, 1).stages(split.clone()));
        let distance = apart(&latents(&pipe, &request()), &one);
        assert!(distance <= SAME, "{split:?}: {distance:.2e}");
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    use xdit_models::StageSplit;
    let refused = |axes, pipefusion| {
        let pipe = over(golden("flux-dev"), axes, pipefusion);
        let error = pipe.generate(&request(), &mut ()).unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
        error.to_string()
    };
    let message = refused([1, 6, 1, 1], pipefusion(2, 1));
    assert!(
        message.contains("pipefusion_parallel_degree") && message.contains("from 1 to 5"),
        "{message}"
    );
    for patches in [0, 10] {
        let message = refused([1, 2, 1, 1], pipefusion(patches, 1));
        assert!(
            message.contains("num_pipeline_patch") && message.contains("from 1 to 9"),
            "{message}"
        );
    }
    for counts in [vec![5], vec![4, 0], vec![2, 2], vec![1, 2, 2]] {
        let message = refused(
            [1, 2, 1, 1],
            pipefusion(2, 1).stages(StageSplit::Blocks(counts)),
        );
        assert!(message.contains("attn_layer_num_for_pp"), "{message}");
    }
}

#[test]
fn a_rank_stopped_on_the_last_stage_stops_all() {
    use std::ops::ControlFlow;
    use xdit_models::{ErrorCategory, Observer, StepEnd};
    struct After(usize, bool);
    impl Observer for After {
        fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
            let stop = step.index >= self.0;
            assert!(!(stop && self.1), "the observer broke");
            if stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    let pipe = over(golden("flux-dev"), [1, 3, 1, 2], pipefusion(4, 1));
    let error = pipe.generate(&request(), &mut After(2, false)).unwrap_err();
    assert_eq!(error.category(), ErrorCategory::Stopped);
    let error = pipe
        .generate(&request(), &mut After(1, true))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("rank 4 (pipe 2, ulysses 0): ") && error.contains("the observer broke"),
        "{error}"
    );
    draw(&pipe, &request());
}

#[test]
fn a_watched_run_shows_the_steps_whole() {
    let request = request().negative_prompt(["green"]).true_cfg_scale(2.0);
    let watched = |axes| {
        let mut seen = Recorder::default();
        let pipe = over(golden("flux-dev"), axes, pipefusion(4, 1));
        let output = pipe.generate(&request, &mut seen).unwrap();
        assert_eq!(
            seen.values("step.3.latents"),
            output.latents.to_vec_blocking::<f32>().unwrap()
        );
        seen.tensors
    };
    let (one, many) = (watched([1, 1, 1, 1]), watched([1, 2, 1, 2]));
    for step in 0..4 {
        for name in [
            "noise_pred",
            "noise_pred_cond",
            "noise_pred_uncond",
            "latents",
        ] {
            let name = format!("step.{step}.{name}");
            assert_eq!(one[&name].shape(), [1, 45, 64]);
            let distance = apart(
                &many[&name].to_vec_blocking::<f32>().unwrap(),
                &one[&name].to_vec_blocking::<f32>().unwrap(),
            );
            assert!(distance <= HYBRID, "{name}: {distance:.2e}");
        }
    }
}
