//! Stable Diffusion 3 and 3.5 under every strategy: dual attention, 38 heads, text of 77 + n tokens.

use xdit_kernels::attention::Attention;
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::layers::Packing;
use xdit_models::sd3::{Sd3Config, Sd3Input, Sd3Positions, Sd3Text, Sd3Transformer};
use xdit_models::weights::Scope;
use xdit_models::{OutputType, Request};
use xdit_tests::goldens::Recorder;

use crate::engine::{
    HYBRID, apart, drawn, golden, output, pipefusion, products, source, tokens, values,
};
use crate::simulation::{Flow, Simulation, Whole};

/// 9 × 5 image tokens, 77 + 6 of text; both branches of guidance.
fn request() -> Request {
    Request::new(["a red circle and a blue square"])
        .negative_prompt(["green"])
        .guidance_scale(3.0)
        .height(144)
        .width(80)
        .num_inference_steps(4)
        .max_sequence_length(6)
        .output(OutputType::Latent)
}

const SIZES: [usize; 3] = [9, 5, 77 + 6];

/// The model alone with its two prompts.
struct Sd3 {
    model: Sd3Transformer,
    config: Sd3Config,
    texts: Vec<Sd3Text>,
    positions: Sd3Positions,
}

impl Whole for Sd3 {
    fn attentions(&self) -> Vec<bool> {
        let own = |block| match self.config.is_dual(block) {
            true => vec![false, true],
            false => vec![false],
        };
        (0..self.config.block_count()).flat_map(own).collect()
    }

    fn predict(
        &self,
        negative: bool,
        latents: &Tensor,
        timestep: f32,
        attention: &mut [Box<dyn Attention>],
    ) -> Vec<f32> {
        let input = Sd3Input {
            latents,
            text: &self.texts[usize::from(negative)],
            timestep: &[timestep],
            positions: &self.positions,
            skip_layers: &[],
        };
        values(&self.model.forward(&input, attention, &mut ()).unwrap())
    }
}

fn simulation(pipeline: &str) -> Simulation<Sd3> {
    let mut seen = Recorder::default();
    golden(pipeline)
        .generate(&request(), &mut seen)
        .expect("a serial run");
    let source = source(pipeline);
    let config = Sd3Config::read(&source.config("transformer/config.json").unwrap()).unwrap();
    let weights = source.open_weights("transformer", None).unwrap();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let model = Sd3Transformer::load(&config, &Scope::root(&weights), packing).unwrap();
    let texts = ["", "negative_"].iter().map(|prefix| {
        let shown = |name: &str| seen.tensors.get(&format!("{prefix}{name}")).expect("shown");
        let pooled = shown("pooled_prompt_embeds");
        model.embed_text(shown("prompt_embeds"), pooled).unwrap()
    });
    let texts = texts.collect();
    let [rows, columns, text_len] = SIZES;
    Simulation {
        noise: tokens(&seen.tensors["latents"]),
        timesteps: seen.values("timesteps"),
        update: Box::new(Flow(seen.values("sigmas"))),
        sizes: SIZES,
        guidance: 3.0,
        rescale: 0.0,
        model: Sd3 {
            positions: Sd3Positions::new(&config, text_len, rows, columns).unwrap(),
            texts,
            model,
            config,
        },
    }
}

/// f32 against f64 in attention, through five blocks and four steps, with guidance that multiplies differences.
const SAME: f64 = 2e-6;

#[test]
fn the_engine_is_the_simulation_with_dual_attention() {
    let simulation = simulation("sd35-medium");
    let mut pipe = Some(golden("sd35-medium"));
    let serial = tokens(&drawn(&mut pipe, [1; 5], pipefusion(1, 1), &request()));
    let distance = apart(&serial, &simulation.run(1, |_| true));
    assert!(
        distance <= SAME,
        "the simulation of no patches is the model: {distance:.2e}"
    );
    for patches in [2, 3, 8] {
        for warmup in [0, 2] {
            let want = simulation.run(patches, |step| step < warmup.max(1));
            let lost = apart(&want, &serial);
            assert!(
                lost >= 1e-4,
                "M {patches}, W {warmup}: staleness shows: {lost:.2e}"
            );
            for axes in [
                [1, 1, 1, 1, 1],
                [1, 1, 3, 1, 1],
                [1, 1, 5, 1, 2],
                [1, 2, 2, 2, 1],
                [1, 1, 4, 2, 2],
            ] {
                let got = drawn(&mut pipe, axes, pipefusion(patches, warmup), &request());
                let distance = apart(&tokens(&got), &want);
                assert!(
                    distance <= SAME,
                    "{axes:?}, M {patches}, W {warmup}: {distance:.2e}"
                );
            }
        }
    }
}

#[test]
fn every_product_up_to_sixteen_ranks() {
    let two_images = request().num_images_per_prompt(2).num_inference_steps(2);
    for (name, stages, patches) in [("sd35-medium", 5, 3), ("sd3-medium", 4, 1)] {
        let mut pipe = Some(golden(name));
        let alone = drawn(&mut pipe, [1; 5], pipefusion(patches, 1), &two_images)
            .to_vec_blocking::<f32>()
            .unwrap();
        for axes in products(stages) {
            let got = drawn(&mut pipe, axes, pipefusion(patches, 1), &two_images);
            let distance = apart(&values(&got), &alone);
            assert!(distance <= HYBRID, "{name}, {axes:?}: {distance:.2e}");
        }
    }
}

#[test]
fn text_of_any_length() {
    let mut pipe = Some(golden("sd35-medium"));
    // T5's tokens after CLIP's 77: 333 is what diffusers has if nobody asks for another length.
    for (length, patches) in [(256, 1), (256, 3), (1, 3), (20, 1)] {
        let request = request().max_sequence_length(length).num_inference_steps(2);
        let options = || pipefusion(patches, 1);
        let alone = drawn(&mut pipe, [1; 5], options(), &request)
            .to_vec_blocking::<f32>()
            .unwrap();
        for axes in [
            [1, 1, 1, 1, 4],
            [1, 1, 1, 4, 1],
            [1, 1, 5, 1, 3],
            [1, 2, 1, 2, 4],
            [1, 2, 2, 2, 2],
        ] {
            let got = drawn(&mut pipe, axes, options(), &request);
            let distance = apart(&got.to_vec_blocking::<f32>().unwrap(), &alone);
            assert!(distance <= HYBRID, "{length}, {axes:?}: {distance:.2e}");
        }
    }
}

#[test]
fn pictures_that_all_ranks_decode() {
    let request = request()
        .num_images_per_prompt(2)
        .num_inference_steps(2)
        .output(OutputType::Image);
    for name in ["sd3-medium", "sd35-medium"] {
        let mut pipe = Some(golden(name));
        for patches in [1, 3] {
            let mut picture = |axes| {
                let output = output(&mut pipe, axes, pipefusion(patches, 1), &request);
                output
                    .float
                    .expect("pictures")
                    .to_vec_blocking::<f32>()
                    .unwrap()
            };
            let alone = picture([1; 5]);
            for axes in [
                [1, 2, 1, 1, 1],
                [2, 1, 1, 1, 2],
                [1, 1, 2, 3, 1],
                [2, 2, 2, 1, 2],
                [1, 2, 4, 1, 2],
                [1, 1, 1, 8, 2],
            ] {
                let distance = apart(&picture(axes), &alone);
                assert!(distance <= HYBRID, "{name}, {axes:?}: {distance:.2e}");
            }
        }
    }
}

#[test]
fn thirty_eight_heads_over_any_number_of_ranks() {
    let mut pipe = Some(golden("sd35-large"));
    // Its table of positions has eight rows.
    let request = request().height(112);
    let alone = drawn(&mut pipe, [1; 5], pipefusion(1, 1), &request)
        .to_vec_blocking::<f32>()
        .unwrap();
    for ulysses in [2, 3, 4, 8] {
        for axes in [
            [1, 1, 1, 1, ulysses],
            [1, 2, 2, 1, ulysses],
            [1, 1, 1, 2, ulysses],
        ] {
            let got = drawn(&mut pipe, axes, pipefusion(1, 1), &request);
            let distance = apart(&got.to_vec_blocking::<f32>().unwrap(), &alone);
            assert!(distance <= HYBRID, "{axes:?}: {distance:.2e}");
        }
    }
}

#[test]
fn skip_layer_guidance_under_every_strategy() {
    // Active in steps 2 and 3 of 8; with patches the run is whole until it has begun.
    let request = request()
        .num_inference_steps(8)
        .skip_guidance_layers([1, 3])
        .skip_layer_guidance(2.0, 0.2, 0.5);
    let mut pipe = Some(golden("sd35-medium"));
    for patches in [1, 3] {
        let options = || pipefusion(patches, 1);
        let alone = drawn(&mut pipe, [1; 5], options(), &request)
            .to_vec_blocking::<f32>()
            .unwrap();
        for axes in [
            [1, 2, 1, 1, 1],
            [1, 1, 3, 1, 1],
            [1, 2, 2, 1, 2],
            [1, 1, 5, 2, 1],
        ] {
            let got = drawn(&mut pipe, axes, options(), &request);
            let distance = apart(&got.to_vec_blocking::<f32>().unwrap(), &alone);
            assert!(
                distance <= HYBRID,
                "{axes:?}, {patches} patches: {distance:.2e}"
            );
        }
    }
}
