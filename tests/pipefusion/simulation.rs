//! An independent model of PipeFusion, slow and on whole tensors: one process, no ranks, no stages, no kept rows other than
//! a plain copy of the last keys and values of every token of every layer.
//!
//! A pass for a patch runs the whole model on all tokens. In attention the rows of that patch (and of the text, with patch 0)
//! replace those of the copy, and every query sees the copy. Rows meet nowhere else, so the patch's rows of the prediction
//! are right, and the others are thrown away.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use xdit_kernels::attention::{Attention, AttnInput, AttnOut};
use xdit_kernels::{Tensor, View};
use xdit_models::flux::{FluxConfig, FluxInput, FluxText, FluxTransformer, RotaryTables};
use xdit_models::layers::Packing;
use xdit_models::weights::Scope;
use xdit_models::{Error, Observer, Request};

use crate::engine::{apart, golden, latents, over, pipefusion, request, source};

/// Keys and values of one layer, as they were when each row was last computed: `[token][head][channel]`.
#[derive(Default)]
struct Layer {
    k: Vec<f32>,
    v: Vec<f32>,
    /// Which tokens this pass computes.
    fresh: Rc<RefCell<Vec<bool>>>,
    /// Tokens of text that this attention does not see.
    unseen: usize,
}

impl Attention for Layer {
    fn attend(&mut self, input: &AttnInput<'_>) -> xdit_kernels::Result<AttnOut> {
        let &[1, tokens, heads, d] = input.q.shape() else {
            panic!("one image at a time");
        };
        let values = |x: View<'_>| x.to_tensor().map(|x| x.to_f32_vec());
        let (q, k, v) = (values(input.q)?, values(input.k)?, values(input.v)?);
        self.k.resize(k.len(), 0.0);
        self.v.resize(v.len(), 0.0);
        let row = heads * d;
        for (token, _) in self.fresh.borrow()[self.unseen..]
            .iter()
            .enumerate()
            .filter(|(_, fresh)| **fresh)
        {
            let rows = token * row..(token + 1) * row;
            self.k[rows.clone()].copy_from_slice(&k[rows.clone()]);
            self.v[rows.clone()].copy_from_slice(&v[rows]);
        }
        let at = |x: &[f32], token: usize, head: usize, c: usize| {
            f64::from(x[token * row + head * d + c])
        };
        let mut out = vec![0.0; q.len()];
        for query in 0..tokens {
            for head in 0..heads {
                let scores: Vec<f64> = (0..tokens)
                    .map(|key| {
                        let dot: f64 = (0..d)
                            .map(|c| at(&q, query, head, c) * at(&self.k, key, head, c))
                            .sum();
                        dot / (d as f64).sqrt()
                    })
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                for c in 0..d {
                    let sum: f64 = (0..tokens)
                        .map(|key| weights[key] * at(&self.v, key, head, c))
                        .sum();
                    out[query * row + head * d + c] = (sum / total) as f32;
                }
            }
        }
        Ok(AttnOut {
            out: Tensor::from_slice(&out, input.q.shape())?,
            lse: Tensor::from_slice(&[0f32; 0], [1, heads, 0])?,
        })
    }
}

/// A whole model, told nothing of patches.
pub(crate) trait Whole {
    /// For each attention whether it is over the image alone.
    fn attentions(&self) -> Vec<bool>;

    /// The prediction for all tokens of latents, of the prompt or of the negative one.
    fn predict(
        &self,
        negative: bool,
        latents: &Tensor,
        timestep: f32,
        attention: &mut [Box<dyn Attention>],
    ) -> Vec<f32>;
}

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
        prediction.unwrap().to_f32_vec()
    }
}

/// What the engine starts from, and the model alone.
pub(crate) struct Simulation<M> {
    pub(crate) model: M,
    /// Tokens `[tokens, channels]`.
    pub(crate) noise: Vec<f32>,
    pub(crate) timesteps: Vec<f32>,
    pub(crate) update: Box<dyn Update>,
    /// Rows, columns, text tokens.
    pub(crate) sizes: [usize; 3],
    /// Of the two predictions; 1 for one.
    pub(crate) guidance: f32,
    /// How much of the guided prediction's deviation over the image is brought to that of the first.
    pub(crate) rescale: f64,
}

/// The step of a sampler, for some values of the latents. What it needs of earlier steps it keeps for each value.
pub(crate) trait Update {
    /// Before the first step of a run.
    fn begin(&self);

    fn step(&self, step: usize, values: Range<usize>, prediction: &[f32], latents: &mut [f32]);
}

/// Euler's method along a flow, between these noise levels.
pub(crate) struct Flow(pub(crate) Vec<f32>);

impl Update for Flow {
    fn begin(&self) {}

    fn step(&self, step: usize, values: Range<usize>, prediction: &[f32], latents: &mut [f32]) {
        for i in values {
            latents[i] += (self.0[step + 1] - self.0[step]) * prediction[i];
        }
    }
}

/// Keeps some of what a serial run shows.
#[derive(Default)]
pub(crate) struct Seen(Vec<(String, Tensor)>);

impl Observer for Seen {
    fn wants_tensors(&self) -> bool {
        true
    }

    fn tensor(
        &mut self,
        name: &str,
        make: &dyn Fn() -> Result<Tensor, Error>,
    ) -> Result<(), Error> {
        if !name.contains('.') {
            self.0.push((name.into(), make()?));
        }
        Ok(())
    }
}

impl Seen {
    pub(crate) fn get(&self, name: &str) -> Option<&Tensor> {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, tensor)| tensor)
    }
}

impl Simulation<Flux> {
    /// Of the request in [`request`], or one like it.
    fn new(pipeline: &str, request: &Request, guidance: f32) -> Self {
        let mut seen = Seen::default();
        let serial = golden(pipeline).generate(request, &mut seen);
        serial.expect("a serial run");
        let source = source(pipeline);
        let config = FluxConfig::read(&source.config("transformer/config.json").unwrap()).unwrap();
        let weights = source.open_weights("transformer", None).unwrap();
        let packing = &mut Packing::new(xdit_kernels::DType::F32, xdit_kernels::Device::cpu());
        let model = FluxTransformer::load(&config, &Scope::root(&weights), packing).unwrap();
        let texts = ["", "negative_"].iter().filter_map(|prefix| {
            let embeds = seen.get(&format!("{prefix}prompt_embeds"))?;
            let pooled = seen.get(&format!("{prefix}pooled_prompt_embeds"))?;
            Some(model.embed_text(embeds, pooled).unwrap())
        });
        let texts = texts.collect();
        let values = |name: &str| seen.get(name).expect("shown").to_f32_vec();
        let sizes = [9, 5, 13];
        let rotary = RotaryTables::new(&config.axes_dims_rope, sizes[2], sizes[0], sizes[1]);
        Self {
            noise: values("latents"),
            timesteps: values("timesteps"),
            update: Box::new(Flow(values("sigmas"))),
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

impl<M: Whole> Simulation<M> {
    /// Rows of each patch: the first ones have one more where they are not even.
    fn patch_rows(&self, patches: usize) -> Vec<usize> {
        let rows = self.sizes[0];
        (0..patches)
            .map(|p| rows / patches + usize::from(p < rows % patches))
            .collect()
    }

    /// The final latents. `whole` says which steps run whole.
    pub(crate) fn run(&self, patches: usize, whole: impl Fn(usize) -> bool) -> Vec<f32> {
        let [rows, columns, text_len] = self.sizes;
        let tokens = text_len + rows * columns;
        let fresh = Rc::new(RefCell::new(vec![false; tokens]));
        let layer = |image_alone: bool| {
            let fresh = fresh.clone();
            let unseen = if image_alone { text_len } else { 0 };
            Box::new(Layer {
                fresh,
                unseen,
                ..Layer::default()
            }) as Box<dyn Attention>
        };
        let branches = if self.guidance > 1.0 { 2 } else { 1 };
        let mut layers: Vec<Vec<Box<dyn Attention>>> = (0..branches)
            .map(|_| self.model.attentions().into_iter().map(layer).collect())
            .collect();
        self.update.begin();
        let mut latents = self.noise.clone();
        // The first and the guided prediction, as each was when its token was last computed.
        let mut newest = vec![[0.0f32; 2]; latents.len()];
        let channels = latents.len() / (rows * columns);
        for (step, timestep) in self.timesteps.iter().enumerate() {
            // Runs of image tokens that are computed one after the other.
            let mut runs = Vec::new();
            if whole(step) {
                runs.push(0..rows * columns);
            } else {
                let mut first = 0;
                for patch in self.patch_rows(patches) {
                    runs.push(first * columns..(first + patch) * columns);
                    first += patch;
                }
            }
            for run in runs {
                for (token, fresh) in fresh.borrow_mut().iter_mut().enumerate() {
                    let with_text = token < text_len && run.start == 0;
                    *fresh = with_text || (token >= text_len && run.contains(&(token - text_len)));
                }
                let image = Tensor::from_slice(&latents, [1, rows * columns, channels]).unwrap();
                let predictions: Vec<Vec<f32>> = layers
                    .iter_mut()
                    .enumerate()
                    .map(|(branch, layers)| {
                        self.model.predict(branch == 1, &image, *timestep, layers)
                    })
                    .collect();
                let values = run.start * channels..run.end * channels;
                for i in values.clone() {
                    let guided = match &predictions[..] {
                        [cond, uncond] => uncond[i] + self.guidance * (cond[i] - uncond[i]),
                        one => one[0][i],
                    };
                    newest[i] = [predictions[0][i], guided];
                }
                let ratio = deviation(newest.iter().map(|pair| pair[0]))
                    / deviation(newest.iter().map(|pair| pair[1]));
                let factor = self.rescale * ratio + (1.0 - self.rescale);
                let prediction: Vec<f32> = newest
                    .iter()
                    .map(|pair| match self.rescale > 0.0 {
                        true => (f64::from(pair[1]) * factor) as f32,
                        false => pair[1],
                    })
                    .collect();
                self.update.step(step, values, &prediction, &mut latents);
            }
        }
        latents
    }
}

fn deviation(values: impl ExactSizeIterator<Item = f32> + Clone) -> f64 {
    let count = values.len() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let squares = values.map(|x| (f64::from(x) - mean).powi(2));
    (squares.sum::<f64>() / (count - 1.0)).sqrt()
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
        let distance = apart(&output.latents.to_f32_vec(), &want);
        // Seven steps instead of four.
        assert!(distance <= 2.0 * SAME, "{plan:?}: {distance:.2e}");
    }
}
