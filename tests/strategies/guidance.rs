//! The branches of guidance on two ranks: the image of one rank, and one exchange per step on the stage with the prediction.

use xdit_models::{Degrees, axes};
use xdit_models::{Error, Output, Parallel, PipeFusion, Pipeline, Request};
use xdit_tests::goldens::Recorder;

use crate::engine::{HYBRID, apart, draw, golden, pipefusion, request};

fn guided() -> Request {
    request().negative_prompt(["green"]).true_cfg_scale(2.5)
}

fn drawn(pipe: &mut Option<Pipeline>, degrees: Degrees, pipefusion: PipeFusion) -> Output {
    let parallel = Parallel::threads(degrees).pipefusion(pipefusion);
    let over = pipe
        .take()
        .unwrap()
        .parallel(parallel)
        .expect("a legal plan");
    draw(pipe.insert(over), &guided())
}

#[test]
fn two_ranks_give_the_image_of_one() {
    let mut pipe = Some(golden("flux-dev"));
    let one = drawn(&mut pipe, Degrees::default(), pipefusion(1, 1));
    let one = one.latents.to_vec_blocking::<f32>().unwrap();
    let two = Degrees {
        cfg: 2,
        ..Degrees::default()
    };
    let output = drawn(&mut pipe, two, pipefusion(1, 1));
    // The same operations on each branch, combined in the same order.
    assert_eq!(output.latents.to_vec_blocking::<f32>().unwrap(), one);
    // 45 tokens of 64 channels, f32, to the other rank, in each of four steps.
    for stats in &output.communication {
        let exchange = stats[&("all_gather", Some(axes::CFG))];
        assert_eq!((exchange.calls, exchange.bytes), (4, 4 * 45 * 64 * 4));
    }
}

#[test]
fn guidance_multiplies_with_everything_else() {
    let mut pipe = Some(golden("flux-dev"));
    for patches in [1, 4] {
        let options = || pipefusion(patches, 1);
        let alone = drawn(&mut pipe, Degrees::default(), options());
        let alone = alone.latents.to_vec_blocking::<f32>().unwrap();
        for [data, pipe_degree, ring, ulysses] in [
            [1, 2, 1, 1],
            [1, 1, 2, 2],
            [2, 2, 1, 2],
            [1, 4, 2, 1],
            [1, 1, 1, 8],
        ] {
            let degrees = Degrees {
                data,
                cfg: 2,
                pipe: pipe_degree,
                ring,
                ulysses,
                ..Degrees::default()
            };
            let output = drawn(&mut pipe, degrees, options());
            let distance = apart(&output.latents.to_vec_blocking::<f32>().unwrap(), &alone);
            assert!(
                distance <= HYBRID,
                "{degrees}, {patches} patches: {distance:.2e}"
            );
            // Only the last stage has a prediction to exchange: in a whole step one, else one a patch.
            let calls = match patches {
                1 => 4,
                _ => 1 + 3 * patches,
            };
            for (rank, stats) in output.communication.iter().enumerate() {
                let last = degrees.coord(rank, axes::PIPE) + 1 == pipe_degree;
                let draws = degrees.coord(rank, axes::DATA) == 0;
                let exchange = stats.get(&("all_gather", Some(axes::CFG)));
                let expected = (last && draws).then_some(calls);
                assert_eq!(
                    exchange.map(|sent| sent.calls),
                    expected,
                    "rank {rank} of {degrees}"
                );
            }
        }
    }
}

/// What is shown of steps: the predictions of every branch, wherever it was computed, and latents.
#[test]
fn every_branch_is_shown_whichever_rank_computes_it() {
    // The third branch is there in step 1 alone.
    let request = Request::new(["a red circle"])
        .negative_prompt(["green"])
        .guidance_scale(3.0)
        .height(96)
        .width(80)
        .num_inference_steps(4)
        .max_sequence_length(5)
        .skip_guidance_layers([1])
        .skip_layer_guidance(2.0, 0.1, 0.5);
    let mut pipe = Some(golden("sd35-medium"));
    let mut steps = |degrees: Degrees, patches: usize| {
        let parallel = Parallel::threads(degrees).pipefusion(pipefusion(patches, 2));
        let over = pipe.take().unwrap().parallel(parallel).unwrap();
        let mut seen = Recorder::default();
        pipe.insert(over).generate(&request, &mut seen).unwrap();
        seen.tensors.retain(|name, _| name.starts_with("step."));
        seen.tensors
    };
    for patches in [1, 3] {
        let one = steps(Degrees::default(), patches);
        let count = |part: &str| one.keys().filter(|name| name.contains(part)).count();
        let branches = ["pred_cond", "pred_uncond", "pred_skip_layers"];
        assert_eq!(branches.map(count), [4, 4, 1], "{:?}", one.keys());
        for [pipe, ulysses] in [[1, 1], [2, 1], [1, 3], [3, 2]] {
            let degrees = Degrees {
                cfg: 2,
                pipe,
                ulysses,
                ..Degrees::default()
            };
            let two = steps(degrees, patches);
            assert!(one.keys().eq(two.keys()), "{degrees}: {:?}", two.keys());
            for (name, shown) in &one {
                assert_eq!(two[name].shape(), shown.shape(), "{degrees}: {name}");
                let [got, want] = [&two[name], shown].map(|x| x.to_vec_blocking::<f32>().unwrap());
                // The other branch on another rank changes no operation.
                if [pipe, ulysses] == [1, 1] {
                    assert_eq!(got, want, "{name}");
                }
                let distance = apart(&got, &want);
                assert!(distance <= HYBRID, "{degrees}: {name}: {distance:.2e}");
            }
        }
    }
}

#[test]
fn without_a_second_branch_there_is_nothing_to_split() {
    let degrees = Degrees {
        cfg: 2,
        ..Degrees::default()
    };
    let pipe = golden("flux-dev")
        .parallel(Parallel::threads(degrees))
        .unwrap();
    for request in [request(), guided().true_cfg_scale(1.0)] {
        let error = pipe.generate(&request, &mut ()).unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("cfg_degree") && message.contains("`negative_prompt`"),
            "{message}"
        );
    }
}
