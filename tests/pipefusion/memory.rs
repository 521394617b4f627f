//! What a plan foretells is what is then measured.

use xdit_comm::Axis;
use xdit_kernels::DType;
use xdit_models::{LoadOptions, ModelSource, Parallel, PipeFusion, Pipeline, Request, StageSplit};

use crate::engine::{degrees, pipefusion};

fn check(request: &Request, dtype: DType, axes: [usize; 4], options: PipeFusion) {
    let load = LoadOptions {
        dtype,
        threads: Some(2),
        ..LoadOptions::default()
    };
    let source = ModelSource::demo();
    let parallel = Parallel::threads(degrees(axes)).pipefusion(options);
    let plan = Pipeline::plan(&source, &load, request, &parallel).unwrap();
    let pipe = Pipeline::load_over(&source, &load, parallel, &mut ()).unwrap();
    let output = pipe.generate(request, &mut ()).unwrap();
    assert_eq!(plan.ranks.len(), output.memory.len());
    for (told, seen) in plan.ranks.iter().zip(&output.memory) {
        let near = |told: u64, seen: u64| (told as f64 - seen as f64).abs() <= 0.1 * seen as f64;
        // Layers are padded to whole panels.
        assert!(
            near(told.parameter_bytes, seen.parameter_bytes),
            "{told:?}: {seen:?}"
        );
        assert_eq!(told.kv_bytes, seen.kv_bytes, "{told:?}");
    }
    // What goes over the links is what the plan says, byte by byte.
    let stages = axes[1];
    if stages > 1 {
        let sent = |stage: usize, from: usize| -> (usize, usize) {
            let rows = axes[2] * axes[3];
            let ranks = from + stage * rows..from + (stage + 1) * rows;
            let of_rank = |rank: usize| output.communication[rank][&("send", Some(Axis::Pipe))];
            ranks
                .map(of_rank)
                .fold((0, 0), |sum, s| (sum.0 + s.calls, sum.1 + s.bytes))
        };
        let (steps, lossy) = (plan.schedule.steps, plan.patched_step.is_some());
        let whole = (0..steps)
            .filter(|step| plan.schedule.is_whole(*step))
            .count();
        let patched = plan.patched_step.unwrap_or(plan.whole_step);
        assert_eq!(lossy, whole < steps);
        for stage in 0..stages - 1 {
            let forward = (
                whole * plan.whole_step.forward.messages
                    + (steps - whole) * patched.forward.messages,
                whole * plan.whole_step.forward.bytes + (steps - whole) * patched.forward.bytes,
            );
            assert_eq!(sent(stage, 0), forward, "stage {stage}");
        }
        let back = (
            (steps - 1) * patched.back.messages,
            (steps - 1) * patched.back.bytes,
        );
        assert_eq!(sent(stages - 1, 0), back);
    }
}

fn request() -> Request {
    Request::new(["a red circle"])
        .height(112)
        .width(80)
        .num_inference_steps(4)
}

#[test]
fn parameters_keys_and_messages_are_as_planned() {
    for dtype in [DType::F32, DType::BF16] {
        check(&request(), dtype, [1, 2, 1, 1], pipefusion(3, 1));
        check(
            &request(),
            dtype,
            [1, 4, 1, 2],
            pipefusion(2, 2).stages(StageSplit::Memory),
        );
    }
    check(&request(), DType::F32, [1, 1, 1, 1], pipefusion(4, 1));
    check(&request(), DType::F32, [1, 3, 2, 3], pipefusion(7, 0));
    check(&request(), DType::F32, [1, 2, 2, 1], pipefusion(1, 0));
    let two_prompts = request().negative_prompt(["a"]).true_cfg_scale(3.0);
    check(&two_prompts, DType::F32, [1, 2, 1, 5], pipefusion(3, 1));
}

#[test]
fn a_rank_holds_its_share_of_the_parameters() {
    let plan = |split: StageSplit| {
        let parallel = Parallel::threads(degrees([1, 4, 1, 1]));
        let parallel = parallel.pipefusion(PipeFusion::default().stages(split));
        Pipeline::plan(
            &ModelSource::demo(),
            &LoadOptions::default(),
            &request(),
            &parallel,
        )
        .unwrap()
    };
    let by_memory = plan(StageSplit::Memory);
    let bytes: Vec<u64> = by_memory
        .stages
        .iter()
        .map(|stage| stage.parameter_bytes)
        .collect();
    let most = *bytes.iter().max().unwrap();
    // Two double blocks of eight, each more than twice a single one, cannot be cut any finer.
    assert!(
        most <= plan(StageSplit::Flops)
            .stages
            .iter()
            .map(|s| s.parameter_bytes)
            .max()
            .unwrap()
    );
    assert!(
        (most as f64) < 0.4 * bytes.iter().sum::<u64>() as f64,
        "{bytes:?}"
    );
    let flops: Vec<f64> = plan(StageSplit::Flops)
        .stages
        .iter()
        .map(|s| s.flops_share)
        .collect();
    assert!(
        flops.iter().all(|share| (share - 0.25).abs() <= 0.01),
        "{flops:?}"
    );
}
