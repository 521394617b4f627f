//! An independent model of PipeFusion, slow and on whole tensors: one process, no ranks, no stages, no kept rows other than
//! a plain copy of the last keys and values of every token of every layer.
//!
//! A pass for a patch runs the whole model on all tokens. In attention the rows of that patch (and of the text, with patch 0)
//! replace those of the copy, and every query sees the copy. Rows meet nowhere else, so the patch's rows of the prediction
//! are right, and the others are thrown away.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use xdit_kernels::{
    Device,
    attention::{Attention, AttnInput, AttnOut},
};
use xdit_kernels::{Tensor, View};

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
        let values = |x: View<'_>| x.to_tensor().map(|x| x.to_vec_blocking::<f32>().unwrap());
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
            out: Tensor::from_slice(&out, input.q.shape(), &Device::cpu())?,
            lse: Tensor::from_slice(&[0f32; 0], [1, heads, 0], &Device::cpu())?,
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
                let image =
                    Tensor::from_slice(&latents, [1, rows * columns, channels], &Device::cpu())
                        .unwrap();
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
