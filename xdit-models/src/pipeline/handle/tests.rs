//! Plans are for one pipeline, what was drawn can be drawn again, and the threads of replicas stay.

use std::collections::HashSet;

use super::*;
use crate::ranks::degrees::Degrees;
use xdit_kernels::DType;

fn golden(name: &str) -> ModelSource {
    let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/pipelines");
    ModelSource::folder(format!("{pipelines}/{name}")).unwrap()
}

fn small() -> Request {
    Request::new("a")
        .height(64)
        .width(70)
        .num_inference_steps(1)
}

#[test]
fn an_empty_prompt_is_drawn_alone_and_among_others() {
    for name in ["flux-dev", "sd3-medium", "hunyuan-v1.1"] {
        let options = LoadOptions {
            threads: Some(1),
            ..LoadOptions::default()
        };
        let pipe = Pipeline::load(&golden(name), &options, &mut ()).unwrap();
        let draw = |prompt: &[&str]| {
            let request = Request::new(prompt)
                .height(32)
                .width(32)
                .num_inference_steps(1);
            let request = match name {
                "hunyuan-v1.1" => request.use_resolution_binning(false),
                _ => request,
            };
            pipe.generate(&request, &mut ()).unwrap().images
        };
        let alone = draw(&[""]);
        assert_eq!(alone.len(), 1, "{name}");
        assert!(
            alone != draw(&["a red circle"]),
            "{name}: the prompt is read"
        );
        assert_eq!(draw(&["", "a red circle"])[0], alone[0], "{name}");
    }
}

#[test]
fn a_plan_is_drawn_by_the_pipeline_that_it_was_made_for() {
    let (source, one) = (golden("flux-dev"), Parallel::default());
    let options = LoadOptions {
        threads: Some(1),
        ..LoadOptions::default()
    };
    let plan = |source: &ModelSource, options: &LoadOptions, parallel: &Parallel| {
        Pipeline::plan(source, options, &small(), parallel).unwrap()
    };
    let pipe = Pipeline::load(&source, &options, &mut ()).unwrap();
    let drawn = pipe.run(plan(&source, &options, &one), &mut ()).unwrap();
    assert_eq!((drawn.plan.height, drawn.plan.width), (64, 64));
    assert_eq!(drawn.plan.warnings.len(), 1);
    // What was served is the same request without open ends.
    let served = drawn.plan.request.clone();
    assert_eq!((served.height, served.width), (Some(64), Some(64)));
    let again = pipe.generate(&served, &mut ()).unwrap();
    assert!(again.plan.warnings.is_empty());
    assert_eq!(again.images[0].rgb, drawn.images[0].rgb);

    let half = LoadOptions {
        dtype: DType::BF16,
        ..options.clone()
    };
    let two = Parallel::threads(Degrees {
        ulysses: 2,
        ..Degrees::default()
    });
    for other in [
        plan(&golden("flux-schnell"), &options, &one),
        plan(&source, &half, &one),
        plan(&source, &options, &two),
    ] {
        let error = pipe.run(other, &mut ()).unwrap_err().to_string();
        assert!(error.starts_with("`plan` = "), "{error}");
    }
}

#[test]
fn replicas_that_draw_requests_start_no_thread_after_the_first_call() {
    let options = LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    };
    let two = Parallel::threads(Degrees {
        data: 2,
        ..Degrees::default()
    });
    let pipe = Pipeline::load(&golden("flux-schnell"), &options, &mut ()).unwrap();
    let pipe = pipe.parallel(two).unwrap();
    // An id of a thread is never given to another one.
    let mut threads = HashSet::new();
    for _ in 0..4 {
        let requests = std::iter::repeat_n((small(), ()), 3);
        let mut drawn = 0;
        pipe.generate_each(requests, |_, output, ()| {
            assert_eq!(output.unwrap().images.len(), 1);
            drawn += 1;
            threads.insert(std::thread::current().id());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(drawn, 3);
    }
    assert!(threads.len() <= 2, "{threads:?}");
}

#[test]
fn the_first_of_several_devices_is_the_pipelines() {
    use xdit_kernels::{Device, Tier};
    let portable = Device::cpu_with(Tier::Portable).unwrap();
    let options = LoadOptions {
        device: portable.clone(),
        ..LoadOptions::default()
    };
    let degrees = Degrees {
        ulysses: 2,
        ..Degrees::default()
    };
    let others = Tier::available().filter(|tier| *tier != Tier::Portable);
    for other in others.map(|tier| Device::cpu_with(tier).unwrap()) {
        let parallel = |devices: [&Device; 2]| {
            Parallel::threads(degrees).on(devices.map(Device::clone).to_vec())
        };
        let [right, wrong] = [parallel([&portable, &other]), parallel([&other, &portable])];
        let (source, request) = (golden("flux-dev"), small());
        assert!(Pipeline::plan(&source, &options, &request, &right).is_ok());
        let errors = [
            Pipeline::plan(&source, &options, &request, &wrong).unwrap_err(),
            Pipeline::load_over(&source, &options, wrong.clone(), &mut ()).unwrap_err(),
        ];
        for error in errors {
            let told = format!("{portable}, the device of the pipeline, first");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }
}
