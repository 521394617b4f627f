//! HunyuanDiT under every strategy: skips, folded and linear pipelines, samplers of several steps and of noise, rescale.

use std::cell::RefCell;
use std::ops::Range;

use xdit_kernels::attention::Attention;
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::hunyuandit::{
    HunyuanConfig, HunyuanInput, HunyuanPositions, HunyuanText, HunyuanTransformer,
};
use xdit_models::layers::Packing;
use xdit_models::noise::{Generator, randn_tensor};
use xdit_models::schedulers::{Scheduler, SchedulerConfig, StepState, TimestepRequest};
use xdit_models::weights::Scope;
use xdit_models::{Degrees, axes};
use xdit_models::{OutputType, Parallel, Pipeline, Placement, Request};
use xdit_tests::goldens::Recorder;

use crate::engine::{
    HYBRID, apart, draw, drawn, golden, output, pipefusion, products, source, tokens, values,
};
use crate::simulation::{Simulation, Update, Whole};

pub(crate) const MODEL: &str = "hunyuan-v1.2";
const DDPM: &str = "DDPMScheduler";
pub(crate) const DPM: &str = "DPMSolverMultistepScheduler";

/// 9 × 5 image tokens; both branches of guidance.
pub(crate) fn request(scheduler: &str, steps: usize) -> Request {
    Request::new(["一个红色的圆 and a blue square"])
        .negative_prompt(["green"])
        .guidance_scale(3.0)
        .height(144)
        .width(80)
        .use_resolution_binning(false)
        .scheduler(scheduler)
        .num_inference_steps(steps)
        .output(OutputType::Latent)
}

const SIZES: [usize; 3] = [9, 5, 0];
const CHANNELS: usize = 4;

/// The model alone with its two prompts.
struct Hunyuan {
    model: HunyuanTransformer,
    texts: Vec<HunyuanText>,
    positions: HunyuanPositions,
}

impl Whole for Hunyuan {
    fn attentions(&self) -> Vec<bool> {
        vec![false; self.model.block_count()]
    }

    fn predict(
        &self,
        negative: bool,
        latents: &Tensor,
        timestep: f32,
        attention: &mut [Box<dyn Attention>],
    ) -> Vec<f32> {
        let input = HunyuanInput {
            latents,
            text: &self.texts[usize::from(negative)],
            timestep: &[timestep],
            positions: &self.positions,
        };
        let prediction = self.model.forward(&input, attention, &mut ());
        values(&prediction.unwrap())
    }
}

/// A scheduler, of which the tests of schedulers know that it is diffusers'. Each value has a state of its own.
struct Sampler {
    scheduler: Box<dyn Scheduler>,
    /// Of each step that draws some, as tokens.
    noise: Vec<Vec<f32>>,
    states: RefCell<Vec<StepState>>,
}

impl Update for Sampler {
    fn begin(&self) {
        let values = SIZES[0] * SIZES[1] * 4 * CHANNELS;
        *self.states.borrow_mut() = vec![StepState::default(); values];
    }

    fn step(&self, step: usize, values: Range<usize>, prediction: &[f32], latents: &mut [f32]) {
        for i in values {
            let one = |value: f32| Tensor::from_slice(&[value], [1], &Device::cpu()).unwrap();
            let noise = self.noise[step].get(i).map(|noise| one(*noise));
            let state = &mut self.states.borrow_mut()[i];
            let (prediction, sample) = (one(prediction[i]), one(latents[i]));
            let stepped = self
                .scheduler
                .step(state, &prediction, &sample, noise.as_ref());
            latents[i] = stepped.unwrap().to_vec_blocking::<f32>().unwrap()[0];
        }
    }
}

/// The noise of each step, drawn for the whole image after that of the start.
fn noise(scheduler: &dyn Scheduler, steps: usize) -> Vec<Vec<f32>> {
    let shape = [1, CHANNELS, 2 * SIZES[0], 2 * SIZES[1]];
    let mut generators = [Generator::new(42)];
    let mut next = || randn_tensor::<f32>(&shape, &mut generators).unwrap();
    next();
    let drawn = (0..steps).map(|step| match scheduler.draws_noise(step) {
        true => tokens(&Tensor::from_slice(&next(), shape, &Device::cpu()).unwrap()),
        false => Vec::new(),
    });
    drawn.collect()
}

fn simulation(request: &Request, name: &str, steps: usize, rescale: f64) -> Simulation<Hunyuan> {
    let mut seen = Recorder::default();
    golden(MODEL)
        .generate(request, &mut seen)
        .expect("a serial run");
    let source = source(MODEL);
    let config = source.config("transformer/config.json").unwrap();
    let config = HunyuanConfig::read(&config).unwrap();
    let weights = source.open_weights("transformer", None).unwrap();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let model = HunyuanTransformer::load(&config, &Scope::root(&weights), packing).unwrap();
    let texts = ["", "negative_"].iter().map(|prefix| {
        let shown = |name: &str| seen.tensors.get(&format!("{prefix}{name}")).expect("shown");
        let mask = |name: &str| -> Vec<bool> {
            let ones = shown(name).to_vec_blocking::<f32>().unwrap();
            ones.into_iter().map(|one| one != 0.0).collect()
        };
        let masks = [mask("text_embedding_mask"), mask("text_embedding_mask_t5")];
        let embeds = [shown("prompt_embeds"), shown("prompt_embeds_2")];
        let text = model.embed_text(embeds, [&masks[0], &masks[1]], &[0.0; 6], &mut ());
        text.unwrap()
    });
    let texts = texts.collect();
    let file = source.config("scheduler/scheduler_config.json").unwrap();
    let mut scheduler = SchedulerConfig::read_as(name, &file).unwrap().scheduler();
    let asked = TimestepRequest {
        num_inference_steps: Some(steps),
        ..TimestepRequest::default()
    };
    scheduler.set_timesteps(&asked).unwrap();
    Simulation {
        noise: tokens(&seen.tensors["latents"]),
        timesteps: scheduler.timesteps().to_vec(),
        update: Box::new(Sampler {
            noise: noise(&*scheduler, steps),
            scheduler,
            states: RefCell::default(),
        }),
        sizes: SIZES,
        guidance: 3.0,
        rescale,
        model: Hunyuan {
            positions: HunyuanPositions::new(&config, SIZES[0], SIZES[1], &Device::cpu()).unwrap(),
            texts,
            model,
        },
    }
}

const BOTH: [Placement; 2] = [Placement::Linear, Placement::Folded];

/// f32 against f64 in attention, through eight blocks and four steps, with guidance that multiplies differences.
const SAME: f64 = 1e-6;

fn engine_is_simulation(name: &str, rescale: f64, patches: &[usize], warmups: &[usize]) {
    let request = request(name, 4).guidance_rescale(rescale);
    let simulation = simulation(&request, name, 4, rescale);
    let mut pipe = Some(golden(MODEL));
    let serial = tokens(&drawn(&mut pipe, [1; 5], pipefusion(1, 1), &request));
    let distance = apart(&serial, &simulation.run(1, |_| true));
    assert!(
        distance <= SAME,
        "{name}: the simulation of no patches is the model: {distance:.2e}"
    );
    let mut worst = 0.0f64;
    for patches in patches {
        for warmup in warmups {
            let want = simulation.run(*patches, |step| step < (*warmup).max(1));
            let lost = apart(&want, &serial);
            assert!(
                *patches == 1 || lost >= 1e-4,
                "{name}, M {patches}, W {warmup}: staleness shows: {lost:.2e}"
            );
            for placement in BOTH {
                let most = if placement == Placement::Folded { 4 } else { 8 };
                for (stages, ring, ulysses, cfg) in [
                    (1, 1, 1, 1),
                    (2, 1, 1, 1),
                    (3, 1, 1, 1),
                    (4, 1, 1, 1),
                    (7, 1, 1, 1),
                    (3, 2, 1, 1),
                    (2, 1, 2, 2),
                    (4, 2, 2, 1),
                ] {
                    if stages > most {
                        continue;
                    }
                    let options = pipefusion(*patches, *warmup).placement(placement);
                    let axes = [1, cfg, stages, ring, ulysses];
                    let got = drawn(&mut pipe, axes, options, &request);
                    let distance = apart(&tokens(&got), &want);
                    assert!(
                        distance <= SAME,
                        "{name}, {placement:?} {axes:?}, M {patches}, W {warmup}: {distance:.2e}"
                    );
                    worst = worst.max(distance);
                }
            }
        }
    }
    println!("{name}: worst {worst:.2e}");
}

#[test]
fn both_placements_are_the_simulation() {
    engine_is_simulation(DPM, 0.0, &[1, 2, 3, 5, 8], &[0, 2]);
}

#[test]
fn noise_of_every_step_is_the_whole_images() {
    engine_is_simulation(DDPM, 0.0, &[1, 3], &[1]);
}

#[test]
fn the_rescale_is_to_the_whole_image() {
    engine_is_simulation(DPM, 0.7, &[1, 3, 9], &[1]);
}

#[test]
fn warm_up_to_the_end_is_serial() {
    let request = request(DPM, 3);
    let mut pipe = Some(golden(MODEL));
    let serial = drawn(&mut pipe, [1; 5], pipefusion(1, 1), &request)
        .to_vec_blocking::<f32>()
        .unwrap();
    for placement in BOTH {
        for stages in [1, 2, 3, 4] {
            let options = pipefusion(3, 3).placement(placement);
            let got = drawn(&mut pipe, [1, 1, stages, 1, 1], options, &request);
            let distance = apart(&got.to_vec_blocking::<f32>().unwrap(), &serial);
            assert!(distance <= 1e-6, "{placement:?}, {stages}: {distance:.2e}");
        }
    }
}

#[test]
fn skips_cross_no_link_of_a_folded_pipeline_and_those_of_a_linear_one_are_counted() {
    let steps = 3;
    let request = request(DPM, steps);
    for (placement, stages) in [
        (Placement::Folded, 2),
        (Placement::Folded, 4),
        (Placement::Linear, 3),
        (Placement::Linear, 8),
    ] {
        let options = pipefusion(3, 1).placement(placement);
        let degrees = Degrees {
            pipe: stages,
            ..Degrees::default()
        };
        let parallel = Parallel::threads(degrees).pipefusion(options);
        let plan = Pipeline::plan(
            &source(MODEL),
            &crate::engine::options(),
            &request,
            &parallel,
        );
        let plan = plan.expect("a legal plan");
        let pipe = golden(MODEL).parallel(parallel).expect("a legal plan");
        let output = draw(&pipe, &request);
        let sent: usize = output
            .communication
            .iter()
            .flat_map(|stats| stats.iter())
            .filter(|((op, axis), _)| *op == "send" && *axis == Some(axes::PIPE))
            .map(|(_, stats)| stats.bytes)
            .sum();
        // Of eight blocks the outputs of 0, 1 and 2 are read again, by 7, 6 and 5. Both branches have 45 tokens of 32 channels.
        let stream = 2 * 45 * 32 * 4;
        let links = stages - 1;
        let stage_of = |block: usize| {
            let holds = |stage: &usize| plan.stages[*stage].blocks.contains(block);
            (0..stages).find(holds).expect("every block is somewhere")
        };
        let crossing = (0..3).filter(|i| stage_of(*i) != stage_of(7 - i)).count();
        let latents = (steps - 1) * 45 * 16 * 4;
        let formula = match placement {
            Placement::Folded => {
                assert_eq!(crossing, 0);
                steps * 2 * links * stream
            }
            Placement::Linear => {
                assert!(crossing > 0);
                steps * (links + crossing) * stream + latents
            }
        };
        assert_eq!(sent, formula, "{placement:?}, {stages} stages");
        let planned: usize = (plan.traffic.iter().enumerate())
            .map(|(step, traffic)| {
                let back = if step + 1 < steps {
                    traffic.back.bytes
                } else {
                    0
                };
                links * (traffic.forward.bytes + traffic.upward.bytes) + traffic.skips.bytes + back
            })
            .sum();
        assert_eq!(planned, formula, "{placement:?}, {stages} stages");
    }
}

#[test]
fn every_product_up_to_sixteen_ranks() {
    let two_images = request(DDPM, 2).num_images_per_prompt(2);
    let mut pipe = Some(golden(MODEL));
    let alone = drawn(&mut pipe, [1; 5], pipefusion(3, 1), &two_images)
        .to_vec_blocking::<f32>()
        .unwrap();
    for (i, axes) in products(4).into_iter().enumerate() {
        // Both in turn.
        let options = pipefusion(3, 1).placement(BOTH[i % 2]);
        let distance = apart(
            &values(&drawn(&mut pipe, axes, options, &two_images)),
            &alone,
        );
        assert!(distance <= HYBRID, "{axes:?}: {distance:.2e}");
    }
}

#[test]
fn pictures_that_all_ranks_decode() {
    let pictures = request(DDPM, 2)
        .num_images_per_prompt(2)
        .output(OutputType::Image);
    let mut pipe = Some(golden(MODEL));
    for (patches, placement) in [(1, BOTH[1]), (3, BOTH[0]), (3, BOTH[1])] {
        let mut picture = |axes| {
            let options = pipefusion(patches, 1).placement(placement);
            let float = output(&mut pipe, axes, options, &pictures).float;
            float.expect("pictures").to_vec_blocking::<f32>().unwrap()
        };
        let alone = picture([1; 5]);
        for axes in [[2, 1, 1, 1, 2], [1, 2, 4, 1, 2], [2, 2, 2, 2, 1]] {
            let distance = apart(&picture(axes), &alone);
            assert!(distance <= HYBRID, "{axes:?}: {distance:.2e}");
        }
    }
}
