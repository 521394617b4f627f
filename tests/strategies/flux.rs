//! The engine with Flux against the simulation.

use xdit_kernels::attention::Attention;
use xdit_kernels::{Device, Tensor};
use xdit_models::Request;
use xdit_models::flux::{FluxConfig, FluxInput, FluxText, FluxTransformer, RotaryTables};
use xdit_models::layers::Packing;
use xdit_models::weights::Scope;
use xdit_tests::goldens::Recorder;

use crate::engine::{apart, golden, latents, over, pipefusion, request, source, values};
use crate::simulation::{Flow, Simulation, Whole};

/// Flux with its prompts, the positive one first.
struct Flux {
    model: FluxTransformer,
    texts: Vec<FluxText>,
    rotary: RotaryTables,
}

impl Whole for Flux {
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
        let input = FluxInput {
            latents,
            text: &self.texts[usize::from(negative)],
            timestep: &[timestep / 1000.0],
            guidance: Some(&[3.5]),
            rotary: &self.rotary,
        };
        let prediction = self.model.forward(&input, attention, &mut ());
        values(&prediction.unwrap())
    }
}

impl Simulation<Flux> {
    /// Of the request in [`request`], or one like it.
    fn new(pipeline: &str, request: &Request, guidance: f32) -> Self {
        let mut seen = Recorder::default();
        let serial = golden(pipeline).generate(request, &mut seen);
        serial.expect("a serial run");
        let source = source(pipeline);
        let config = FluxConfig::read(&source.config("transformer/config.json").unwrap()).unwrap();
        let weights = source.open_weights("transformer", None).unwrap();
        let packing = &mut Packing::new(xdit_kernels::DType::F32, xdit_kernels::Device::cpu());
        let model = FluxTransformer::load(&config, &Scope::root(&weights), packing).unwrap();
        let texts = ["", "negative_"].iter().filter_map(|prefix| {
            let embeds = seen.tensors.get(&format!("{prefix}prompt_embeds"))?;
            let pooled = seen.tensors.get(&format!("{prefix}pooled_prompt_embeds"))?;
            Some(model.embed_text(embeds, pooled).unwrap())
        });
        let texts = texts.collect();
        let sizes = [9, 5, 13];
        let rotary = RotaryTables::new(
            &config.axes_dims_rope,
            sizes[2],
            sizes[0],
            sizes[1],
            &Device::cpu(),
        );
        Self {
            noise: seen.values("latents"),
            timesteps: seen.values("timesteps"),
            update: Box::new(Flow(seen.values("sigmas"))),
            sizes,
            guidance,
            rescale: 0.0,
            model: Flux {
                rotary: rotary.unwrap(),
                texts,
                model,
            },
        }
    }
}

/// f32 against f64 in attention, through five blocks and four steps of a model with random weights.
const SAME: f64 = 1e-6;

fn engine_equals_simulation(
    request: &Request,
    true_cfg: f32,
    plans: &[[usize; 4]],
    patches: &[usize],
    warmups: &[usize],
) {
    let simulation = Simulation::new("flux-dev", request, true_cfg);
    let serial = latents(&golden("flux-dev"), request);
    let whole = simulation.run(1, |_| true);
    assert!(
        apart(&serial, &whole) <= SAME,
        "the simulation of no patches is the model: {:.2e}",
        apart(&serial, &whole)
    );
    let mut pipe = golden("flux-dev");
    let mut worst = 0.0f64;
    for &m in patches {
        for &w in warmups {
            let want = simulation.run(m, |step| step < w.max(1));
            if m > 1 {
                let lost = apart(&want, &serial);
                assert!(
                    lost >= 1e-4,
                    "M {m}, W {w}: staleness shows, or nothing is tested: {lost:.2e}"
                );
            }
            for &plan in plans {
                pipe = over(pipe, plan, pipefusion(m, w));
                let got = latents(&pipe, request);
                let distance = apart(&got, &want);
                assert!(
                    distance <= SAME,
                    "N, R, U {plan:?}, M {m}, W {w}: {distance:.2e}"
                );
                worst = worst.max(distance);
            }
        }
    }
    println!("worst {worst:.2e}");
}

#[test]
fn the_engine_is_the_simulation() {
    let mut plans = Vec::new();
    for stages in 1..=4 {
        for ring in 1..=2 {
            for ulysses in 1..=2 {
                plans.push([1, stages, ring, ulysses]);
            }
        }
    }
    engine_equals_simulation(&request(), 1.0, &plans, &[1, 2, 3, 5, 8], &[0, 1, 2]);
}

#[test]
fn with_two_prompts_a_step_too() {
    let request = request().negative_prompt(["green"]).true_cfg_scale(2.0);
    let plans = [[1, 1, 1, 1], [1, 3, 1, 1], [1, 2, 1, 2], [1, 2, 2, 1]];
    engine_equals_simulation(&request, 2.0, &plans, &[2, 5, 9], &[1]);
}

#[test]
fn steps_that_max_drift_runs_whole_are_whole() {
    let request = request().num_inference_steps(7);
    let simulation = Simulation::new("flux-dev", &request, 1.0);
    let mut pipe = golden("flux-dev");
    // Something between the drifts of different steps.
    pipe = over(pipe, [1, 1, 1, 1], pipefusion(3, 1));
    let report = crate::engine::draw(&pipe, &request).pipefusion.remove(0);
    let mut drifts: Vec<f32> = report.drift.iter().copied().flatten().collect();
    assert_eq!((drifts.len(), report.drift[0]), (6, None));
    drifts.sort_by(f32::total_cmp);
    let between = (drifts[2] + drifts[3]) / 2.0;
    for plan in [[1, 1, 1, 1], [1, 3, 1, 1], [1, 2, 2, 2]] {
        pipe = over(pipe, plan, pipefusion(3, 1).max_drift(between));
        let output = crate::engine::draw(&pipe, &request);
        let report = &output.pipefusion[0];
        assert!(
            !report.refreshed.is_empty() && report.whole.len() < 7,
            "{report:?}"
        );
        for step in 0..7 {
            let above = step >= 2 && report.drift[step - 2].is_some_and(|drift| drift > between);
            assert_eq!(
                report.whole.contains(&step),
                above || step == 0,
                "step {step} of {report:?}"
            );
        }
        let want = simulation.run(3, |step| report.whole.contains(&step));
        let distance = apart(&output.latents.to_vec_blocking::<f32>().unwrap(), &want);
        // Seven steps instead of four.
        assert!(distance <= 2.0 * SAME, "{plan:?}: {distance:.2e}");
    }
}
