//! Guidance's branches on two ranks: the image of one rank, and one exchange a step where the prediction is.

use xdit_comm::{Axis, Degrees};
use xdit_models::{Error, Output, Parallel, PipeFusion, Pipeline, Request};

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
    let one = one.latents.to_f32_vec();
    let two = Degrees {
        cfg: 2,
        ..Degrees::default()
    };
    let output = drawn(&mut pipe, two, pipefusion(1, 1));
    // The same operations on each branch, combined in the same order.
    assert_eq!(output.latents.to_f32_vec(), one);
    // 45 tokens of 64 channels, f32, to the other rank, in each of four steps.
    for stats in &output.communication {
        let exchange = stats[&("all_gather", Some(Axis::Cfg))];
        assert_eq!((exchange.calls, exchange.bytes), (4, 4 * 45 * 64 * 4));
    }
}

#[test]
fn guidance_multiplies_with_everything_else() {
    let mut pipe = Some(golden("flux-dev"));
    for patches in [1, 4] {
        let options = || pipefusion(patches, 1);
        let alone = drawn(&mut pipe, Degrees::default(), options());
        let alone = alone.latents.to_f32_vec();
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
            };
            let output = drawn(&mut pipe, degrees, options());
            let distance = apart(&output.latents.to_f32_vec(), &alone);
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
                let last = degrees.coord(rank, Axis::Pipe) + 1 == pipe_degree;
                let draws = degrees.coord(rank, Axis::Data) == 0;
                let exchange = stats.get(&("all_gather", Some(Axis::Cfg)));
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
            message.contains("cfg_degree") && message.contains("negative prompt"),
            "{message}"
        );
    }
}
