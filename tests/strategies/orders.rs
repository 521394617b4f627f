//! No order of the axes of the mesh changes a byte.

use std::cell::RefCell;

use proptest::prelude::*;
use xdit_models::{Degrees, MeshOrder, Output, Parallel, Pipeline, Request, axes};

use crate::engine::{golden, pipefusion};

/// Two pictures with guidance: every axis has work.
fn request() -> Request {
    Request::new(["a red circle"])
        .negative_prompt(["green"])
        .true_cfg_scale(2.0)
        .height(112)
        .width(48)
        .num_inference_steps(3)
        .num_images_per_prompt(2)
        .max_sequence_length(9)
}

fn draw(pipe: &RefCell<Option<Pipeline>>, degrees: Degrees, patches: usize) -> Output {
    let options = pipefusion(patches, 1).max_drift(0.3);
    let parallel = Parallel::threads(degrees).pipefusion(options);
    let over = pipe.take().expect("it comes back").parallel(parallel);
    let over = over.expect("a legal plan");
    let output = over.generate(&request(), &mut ()).expect("pictures");
    pipe.replace(Some(over));
    output
}

/// `[data, cfg, pipe, ring, ulysses]`: two or more axes of each plan have several ranks.
const PLANS: [[usize; 5]; 8] = [
    [1, 1, 1, 2, 2],
    [1, 1, 1, 2, 3],
    [1, 1, 2, 1, 3],
    [1, 2, 1, 3, 1],
    [2, 1, 3, 1, 1],
    [2, 2, 1, 1, 2],
    [1, 2, 2, 2, 1],
    [2, 2, 2, 1, 2],
];

#[test]
fn no_order_of_axes_changes_a_byte() {
    let pipe = RefCell::new(Some(golden("flux-dev")));
    let orders = Just(axes::ALL.map(|axis| axis.name()).to_vec()).prop_shuffle();
    let plans = prop::sample::select(&PLANS[..]);
    let config = ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(names in orders, plan in plans, patches in 1usize..4)| {
        let [data, cfg, stages, ring, ulysses] = plan;
        let usual = Degrees { data, cfg, pipe: stages, ring, ulysses, order: MeshOrder::USUAL };
        let order = names.join(",").parse().expect("all axes");
        let turned = Degrees { order, ..usual };
        let [one, other] = [usual, turned].map(|degrees| draw(&pipe, degrees, patches));
        for (image, same) in one.images.iter().zip(&other.images) {
            prop_assert!(image.rgb == same.rgb, "{turned}");
        }
        let bytes = |output: &Output| output.latents.host_bytes_blocking().map(|it| it.into_owned());
        prop_assert_eq!(bytes(&one).unwrap(), bytes(&other).unwrap());
        prop_assert_eq!(&one.pipefusion, &other.pipefusion);
        // Each rank is where the order says, and sends what the rank with the same work sends.
        for (rank, sent) in other.communication.iter().enumerate() {
            let coordinates = axes::ALL.map(|axis| turned.coord(rank, axis));
            prop_assert_eq!(other.plan.ranks[rank].coordinates, coordinates);
            let twin = one.plan.ranks.iter().position(|rank| rank.coordinates == coordinates);
            let bytes = |stats: &xdit_comm::Stats| -> Vec<_> {
                stats.iter().map(|(key, total)| (*key, total.bytes)).collect()
            };
            prop_assert_eq!(bytes(sent), bytes(&one.communication[twin.expect("a twin")]));
        }
    });
}
