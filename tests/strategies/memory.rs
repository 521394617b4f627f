//! Compares the memory of a plan with the measured one.

use serde_json::json;
use xdit_kernels::DType;
use xdit_models::hunyuandit::{HunyuanConfig, HunyuanTransformer};
use xdit_models::sd3::{Sd3Config, Sd3Transformer};
use xdit_models::{Degrees, axes};
use xdit_models::{
    LoadOptions, ModelSource, Parallel, PipeFusion, Pipeline, Placement, Request, StageSplit,
    Traffic,
};
use xdit_tests::wide::widened;

use crate::engine::{degrees, pipefusion, source};

/// Whether layers are wide enough for the padding to whole panels to be within the tenth that is promised.
#[derive(Clone, Copy, PartialEq)]
enum Layers {
    Wide,
    Tiny,
}

fn check(request: &Request, dtype: DType, axes: [usize; 4], options: PipeFusion) {
    let model = (ModelSource::demo(), Layers::Wide);
    check_model(model, request, dtype, degrees(axes), options);
}

fn check_model(
    (source, layers): (ModelSource, Layers),
    request: &Request,
    dtype: DType,
    degrees: Degrees,
    options: PipeFusion,
) {
    let load = LoadOptions {
        dtype,
        threads: Some(2),
        ..LoadOptions::default()
    };
    let parallel = Parallel::threads(degrees).pipefusion(options);
    let plan = Pipeline::plan(&source, &load, request, &parallel).unwrap();
    let pipe = Pipeline::load_over(&source, &load, parallel, &mut ()).unwrap();
    let output = pipe.generate(request, &mut ()).unwrap();
    assert_eq!(plan.ranks.len(), output.memory.len());
    for (told, seen) in plan.ranks.iter().zip(&output.memory) {
        let near = |told: u64, seen: u64| (told as f64 - seen as f64).abs() <= 0.1 * seen as f64;
        assert!(
            layers == Layers::Tiny || near(told.parameter_bytes, seen.parameter_bytes),
            "{told:?}: {seen:?}"
        );
        assert_eq!(told.kv_bytes, seen.kv_bytes, "{told:?}");
        assert_eq!(told.text_kv_bytes, seen.text_kv_bytes, "{told:?}");
    }
    // What goes over the links is what the plan says, message by message, byte by byte.
    let last = degrees.pipe - 1;
    if last == 0 {
        return;
    }
    let mut sent = vec![(0, 0); degrees.pipe];
    for (rank, stats) in output.communication.iter().enumerate() {
        let of_rank = stats[&("send", Some(axes::PIPE))];
        let stage = &mut sent[degrees.coord(rank, axes::PIPE)];
        *stage = (stage.0 + of_rank.calls, stage.1 + of_rank.bytes);
    }
    let total = |traffic: &mut dyn Iterator<Item = Traffic>| {
        traffic.fold((0, 0), |sum, t| (sum.0 + t.messages, sum.1 + t.bytes))
    };
    let forward = total(&mut plan.traffic.iter().map(|step| step.forward));
    let skips = total(&mut plan.traffic.iter().map(|step| step.skips));
    let upward = total(&mut plan.traffic.iter().map(|step| step.upward));
    let before_last = &plan.traffic[..plan.traffic.len() - 1];
    let back = total(&mut before_last.iter().map(|step| step.back));
    let mut links = (0, 0);
    let mut all = (0, 0);
    for (stage, sent) in sent.into_iter().enumerate() {
        let folded = plan.placement == Placement::Folded;
        let on = if stage < last { forward } else { (0, 0) };
        let more = match (folded, stage) {
            (true, 0) => (0, 0),
            (true, _) => upward,
            (false, _) if stage == last => back,
            (false, _) => (0, 0),
        };
        let expected = (on.0 + more.0, on.1 + more.1);
        (links, all) = (
            (links.0 + expected.0, links.1 + expected.1),
            (all.0 + sent.0, all.1 + sent.1),
        );
        if skips.0 > 0 {
            // Beside these it hands on what blocks of other stages read again.
            assert!(sent >= expected, "stage {stage} of {degrees}");
            continue;
        }
        assert_eq!(sent, expected, "stage {stage} of {degrees}");
    }
    let planned = (links.0 + skips.0, links.1 + skips.1);
    assert_eq!(all, planned, "all links of {degrees}");
}

#[test]
fn branches_and_dual_attention_are_counted() {
    // The third branch comes in at step 2 of 6 and leaves at step 3: it leaves out two blocks, one of them dual.
    let request = Request::new(["a red circle"])
        .height(96)
        .width(48)
        .num_inference_steps(6)
        .max_sequence_length(5)
        .guidance_scale(3.0)
        .skip_guidance_layers([1, 3])
        .skip_layer_guidance(2.0, 0.25, 0.5);
    for cfg in [1, 2] {
        let degrees = Degrees {
            cfg,
            pipe: 3,
            ring: 2,
            ulysses: 3,
            ..Degrees::default()
        };
        let model = (source("sd35-medium"), Layers::Tiny);
        check_model(model, &request, DType::F32, degrees, pipefusion(3, 1));
    }
}

/// Three heads of 64 channels: layers of 192 and more, as wide as the demo's.
#[test]
fn parameters_of_a_wider_sd3_are_as_planned() {
    let folder = tempfile::tempdir().unwrap();
    let wide =
        json!({"num_attention_heads": 3, "attention_head_dim": 64, "caption_projection_dim": 192});
    widened(
        "sd35-medium",
        folder.path(),
        &wide,
        |config, scope, packing| {
            Sd3Transformer::load(&Sd3Config::read(config).unwrap(), scope, packing).unwrap();
        },
    );
    let request = Request::new(["a red circle"])
        .height(96)
        .width(48)
        .num_inference_steps(3)
        .max_sequence_length(5);
    for (dtype, cfg, pipe, ulysses, patches) in [
        (DType::F32, 1, 1, 1, 1),
        (DType::F32, 1, 5, 1, 3),
        (DType::F32, 2, 2, 2, 2),
        (DType::BF16, 1, 4, 1, 1),
        (DType::BF16, 2, 3, 1, 3),
    ] {
        let degrees = Degrees {
            cfg,
            pipe,
            ulysses,
            ..Degrees::default()
        };
        let model = ModelSource::folder(folder.path()).unwrap();
        let options = pipefusion(patches, 1);
        check_model((model, Layers::Wide), &request, dtype, degrees, options);
    }
}

/// Three heads of 64 channels, folded and not: skips too are as planned.
#[test]
fn a_wider_hunyuandit_is_as_planned() {
    let folder = tempfile::tempdir().unwrap();
    let wide = json!({"num_attention_heads": 3, "attention_head_dim": 64, "hidden_size": 192});
    widened(
        "hunyuan-v1.2",
        folder.path(),
        &wide,
        |config, scope, packing| {
            let config = HunyuanConfig::read(config).unwrap();
            HunyuanTransformer::load(&config, scope, packing).unwrap();
        },
    );
    let request = Request::new(["一个红色的圆"])
        .height(96)
        .width(48)
        .num_inference_steps(3)
        .use_resolution_binning(false);
    for (placement, dtype, cfg, pipe, ulysses, patches) in [
        (Placement::Folded, DType::F32, 1, 1, 1, 1),
        (Placement::Folded, DType::F32, 1, 4, 1, 3),
        (Placement::Folded, DType::BF16, 2, 3, 1, 2),
        (Placement::Linear, DType::F32, 1, 8, 1, 3),
        (Placement::Linear, DType::F32, 2, 3, 2, 2),
        (Placement::Linear, DType::BF16, 1, 5, 1, 1),
    ] {
        let degrees = Degrees {
            cfg,
            pipe,
            ulysses,
            ..Degrees::default()
        };
        let model = ModelSource::folder(folder.path()).unwrap();
        let options = pipefusion(patches, 1).placement(placement);
        check_model((model, Layers::Wide), &request, dtype, degrees, options);
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
