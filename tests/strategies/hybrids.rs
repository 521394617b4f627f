//! Every product of data, pipe, ring and ulysses produces the image of its PipeFusion part alone.

use xdit_models::Request;
use xdit_tests::goldens::max_abs;

use crate::engine::{HYBRID, apart, draw, golden, over, pipefusion, request};

#[test]
fn every_product_up_to_sixteen_ranks_gives_the_image_of_pipefusion_alone() {
    let two_images = || -> Request { request().num_images_per_prompt(2).num_inference_steps(3) };
    let mut pipe = over(golden("flux-dev"), [1, 2, 1, 1], pipefusion(4, 1));
    let alone = draw(&pipe, &two_images())
        .latents
        .to_vec_blocking::<f32>()
        .unwrap();
    let up_to = |product: usize| 1..=16 / product;
    let mut plans = Vec::new();
    for data in up_to(1) {
        // The model has five blocks.
        for stages in up_to(data).filter(|stages| *stages <= 5) {
            for ring in up_to(data * stages) {
                plans.extend(
                    up_to(data * stages * ring).map(|ulysses| [data, stages, ring, ulysses]),
                );
            }
        }
    }
    assert!(plans.len() > 100);
    let mut worst = 0.0f64;
    for plan in plans {
        pipe = over(pipe, plan, pipefusion(4, 1));
        let output = draw(&pipe, &two_images());
        let distance = apart(&output.latents.to_vec_blocking::<f32>().unwrap(), &alone);
        assert!(
            distance <= HYBRID,
            "data, pipe, ring, ulysses {plan:?}: {distance:.2e}"
        );
        worst = worst.max(distance);
    }
    println!("worst {worst:.2e}");
}

#[test]
fn replicas_decide_together_which_steps_run_whole() {
    let images = || {
        let request = request().num_images_per_prompt(3).num_inference_steps(6);
        request.seeds([1, 2, 3])
    };
    let mut pipe = over(golden("flux-dev"), [1, 2, 1, 1], pipefusion(4, 1));
    let drift = draw(&pipe, &images()).pipefusion[0].drift.clone();
    let mut drift: Vec<f32> = drift.into_iter().flatten().collect();
    drift.sort_by(f32::total_cmp);
    let between = pipefusion(4, 1).max_drift((drift[1] + drift[2]) / 2.0);
    pipe = over(pipe, [1, 2, 1, 1], between.clone());
    let alone = draw(&pipe, &images());
    assert!(!alone.pipefusion[0].refreshed.is_empty() && alone.pipefusion[0].whole.len() < 6);
    // Five are more replicas than images: two draw nothing, and decide nothing.
    for data in [2, 3, 5] {
        pipe = over(pipe, [data, 2, 1, 1], between.clone());
        let output = draw(&pipe, &images());
        for report in &output.pipefusion {
            assert_eq!(report.whole, alone.pipefusion[0].whole, "{data} replicas");
        }
        assert_eq!(
            output.latents.host_bytes_blocking().unwrap(),
            alone.latents.host_bytes_blocking().unwrap()
        );
    }
}

#[test]
fn the_picture_too_with_every_axis() {
    use crate::engine::degrees;
    use xdit_models::{LoadOptions, ModelSource, OutputType, Parallel, Pipeline};
    let options = LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    };
    let mut pipe = Pipeline::load(&ModelSource::demo(), &options, &mut ()).unwrap();
    let request = Request::new(["a red circle on a blue background", "a green star"])
        .height(80)
        .width(112)
        .num_inference_steps(4)
        .output(OutputType::Image);
    let mut picture = |axes| {
        let parallel = Parallel::threads(degrees(axes)).pipefusion(pipefusion(3, 1));
        pipe = std::mem::replace(
            &mut pipe,
            Pipeline::load(&ModelSource::demo(), &options, &mut ()).unwrap(),
        )
        .parallel(parallel)
        .unwrap();
        draw(&pipe, &request)
            .float
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap()
    };
    let alone = picture([1, 2, 1, 1]);
    for axes in [[2, 2, 2, 2], [1, 4, 1, 3], [2, 1, 1, 1], [1, 8, 1, 1]] {
        let got = picture(axes);
        let most = max_abs(&got, &alone);
        // As for sequence parallelism without PipeFusion: sums in another order in attention and decoder.
        assert!(most <= 2e-5, "{axes:?}: {most:.2e}");
    }
}
