//! Winograd's convolution on the inputs of a trained VAE decoder, compared with sums in f64.

use xdit_kernels::attention::{Attention, AttnInput, Flash};
use xdit_kernels::group_norm::group_norm;
use xdit_kernels::{
    DType, Device, Tensor,
    conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding},
    elementwise,
    linear::Linear,
};
use xdit_models::vae::VaeConfig;
use xdit_models::weights::Scope;
use xdit_models::{LoadOptions, ModelSource, Pipeline, Request};

use crate::golden::{Recorder, relative_l2};

/// Relative L2 of one convolution, either way. The bound for a whole block is 2e-6, of which each of its two
/// convolutions may have half. Measured with AVX-512: at most 2.5e-7 by Winograd and 3.5e-7 by the plain sum, whose chains
/// are longer; the transforms' amplification costs less than that.
const L2: f64 = 1e-6;
/// Worst element, relative to the largest of its output. Measured: 8.5e-7; a tile's error follows the largest of its 36
/// inputs, so dark tiles beside bright pixels have the worst.
const WORST: f64 = 2e-6;

/// The decoder once more, with every 3×3 convolution done both ways.
struct Decoder<'a> {
    weights: Scope<'a>,
    groups: usize,
    /// Of each convolution: name, relative L2 of the plain sum and of Winograd, worst element of Winograd.
    errors: Vec<(String, f64, f64, f64)>,
}

impl Decoder<'_> {
    fn parameter(&self, name: &str, shape: &[usize]) -> Tensor {
        self.weights
            .tensor(&format!("decoder.{name}"), shape)
            .unwrap()
    }

    /// The 3×3 convolution `name` of `x`, by the plain sum.
    fn conv(&mut self, name: &str, x: &Tensor, outputs: usize, upsample: bool) -> Tensor {
        let weight = self.parameter(&format!("{name}.weight"), &[outputs, x.dim(3), 3, 3]);
        let bias = self.parameter(&format!("{name}.bias"), &[outputs]);
        let [direct, winograd] = [Algorithm::Direct, Algorithm::Winograd].map(|algorithm| {
            let options = Conv2dOptions {
                padding: Padding::all(1),
                algorithm,
                upsample,
                ..Conv2dOptions::default()
            };
            let bias = Some(bias.view());
            Conv2d::pack(&weight, bias, options, DType::F32, &Device::cpu())
                .unwrap()
                .forward(x)
                .unwrap()
        });
        let (at, want) = sums(x, &weight, &bias, upsample);
        let sampled = |y: &Tensor| {
            let y = y.to_vec_blocking::<f32>().unwrap();
            at.iter()
                .flat_map(|&p| y[p * outputs..][..outputs].to_vec())
                .collect::<Vec<f32>>()
        };
        let (plain, fast) = (sampled(&direct), sampled(&winograd));
        // The oracle's own rounding to f32 adds 3e-8 at most.
        let largest = want.iter().fold(0f32, |m, w| m.max(w.abs()));
        let worst = fast.iter().zip(&want).map(|(g, w)| (g - w).abs());
        let worst = f64::from(worst.fold(0f32, f32::max) / largest);
        let l2 = [&plain, &fast].map(|y| relative_l2(y, &want));
        self.errors.push((name.to_owned(), l2[0], l2[1], worst));
        direct
    }

    fn norm(&self, name: &str, x: &Tensor, silu: bool) -> Tensor {
        let [weight, bias] =
            ["weight", "bias"].map(|p| self.parameter(&format!("{name}.{p}"), &[x.dim(3)]));
        group_norm(x, self.groups, &weight, &bias, 1e-6, silu).unwrap()
    }

    fn linear(&self, name: &str, x: &Tensor, outputs: usize, kernel: &[usize]) -> Tensor {
        let inputs = x.dim(x.shape().len() - 1);
        let shape = [&[outputs, inputs], kernel].concat();
        let weight = self.parameter(&format!("{name}.weight"), &shape);
        let weight = weight.reshape([outputs, inputs]).unwrap();
        let bias = self.parameter(&format!("{name}.bias"), &[outputs]);
        Linear::pack(weight.view(), Some(bias.view()), DType::F32, &Device::cpu())
            .unwrap()
            .forward(x)
            .unwrap()
    }

    fn resnet(&mut self, name: &str, x: &Tensor, outputs: usize) -> Tensor {
        let mut inner = self.norm(&format!("{name}.norm1"), x, true);
        inner = self.conv(&format!("{name}.conv1"), &inner, outputs, false);
        inner = self.norm(&format!("{name}.norm2"), &inner, true);
        inner = self.conv(&format!("{name}.conv2"), &inner, outputs, false);
        if x.dim(3) == outputs {
            return elementwise::add(x, &inner).unwrap();
        }
        let shortcut = self.linear(&format!("{name}.conv_shortcut"), x, outputs, &[1, 1]);
        elementwise::add(&shortcut, &inner).unwrap()
    }

    fn attention(&self, name: &str, x: &Tensor) -> Tensor {
        let [h, w, c] = [1, 2, 3].map(|d| x.dim(d));
        let normed = self.norm(&format!("{name}.group_norm"), x, false);
        let [q, k, v] = ["to_q", "to_k", "to_v"].map(|part| {
            let y = self.linear(&format!("{name}.{part}"), &normed, c, &[]);
            y.reshape([1, h * w, 1, c]).unwrap()
        });
        let input = AttnInput::new(q.view(), k.view(), v.view());
        let out = Flash.attend(&input).unwrap().out;
        let out = out.reshape([1, h, w, c]).unwrap();
        elementwise::add(
            x,
            self.linear(&format!("{name}.to_out.0"), &out, c, &[])
                .view(),
        )
        .unwrap()
    }

    fn decode(&mut self, latents: &Tensor, config: &VaeConfig) -> Tensor {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let mut x = self.conv("conv_in", latents, channels[0], false);
        x = self.resnet("mid_block.resnets.0", &x, channels[0]);
        x = self.attention("mid_block.attentions.0", &x);
        x = self.resnet("mid_block.resnets.1", &x, channels[0]);
        for (i, &outputs) in channels.iter().enumerate() {
            for j in 0..=config.layers_per_block {
                x = self.resnet(&format!("up_blocks.{i}.resnets.{j}"), &x, outputs);
            }
            if i + 1 < channels.len() {
                let name = format!("up_blocks.{i}.upsamplers.0.conv");
                x = self.conv(&name, &x, outputs, true);
            }
        }
        x = self.norm("conv_norm_out", &x, true);
        self.conv("conv_out", &x, config.out_channels, false)
    }
}

/// The convolution in f64 at some pixels of one picture: their indices, and their channels rounded once.
fn sums(x: &Tensor, weight: &Tensor, bias: &Tensor, upsample: bool) -> (Vec<usize>, Vec<f32>) {
    let [h, w, ic] = [1, 2, 3].map(|d| x.dim(d));
    let shift = usize::from(upsample);
    let (oh, ow, oc) = (h << shift, w << shift, weight.dim(0));
    let [x, weight, bias] = [x, weight, bias].map(|x| x.to_vec_blocking::<f32>().unwrap());
    // About 500 pixels. Odd, so that every place in a tile of 4×4 comes up, and the corners.
    let step = (oh * ow / 500) | 1;
    let mut at: Vec<usize> = (0..oh * ow).step_by(step).collect();
    at.push(oh * ow - 1);
    let mut out = Vec::with_capacity(at.len() * oc);
    for &p in &at {
        for o in 0..oc {
            let mut sum = f64::from(bias[o]);
            for tap in 0..9 {
                let (y, x0) = (p / ow + tap / 3, p % ow + tap % 3);
                if (1..=oh).contains(&y) && (1..=ow).contains(&x0) {
                    let pixel = ((y - 1) >> shift) * w + ((x0 - 1) >> shift);
                    for i in 0..ic {
                        let a = f64::from(x[pixel * ic + i]);
                        sum += a * f64::from(weight[(o * ic + i) * 9 + tap]);
                    }
                }
            }
            out.push(sum as f32);
        }
    }
    (at, out)
}

#[test]
fn winograd_is_exact_enough_for_a_trained_decoder() {
    let source = ModelSource::demo();
    let options = LoadOptions {
        dtype: DType::F32,
        ..LoadOptions::default()
    };
    let pipe = Pipeline::load(&source, &options, &mut ()).unwrap();
    let mut seen = Recorder::default();
    let request = Request::new(["a red circle on a blue background"]);
    pipe.generate(&request, &mut seen).unwrap();
    let nhwc = |name: &str| {
        let nchw = seen.tensors[name].view();
        nchw.permute(&[0, 2, 3, 1]).unwrap().to_tensor().unwrap()
    };

    let config = VaeConfig::read(&source.config("vae/config.json").unwrap()).unwrap();
    let weights = source.open_weights("vae", None).unwrap();
    let mut decoder = Decoder {
        weights: Scope::root(&weights),
        groups: config.norm_num_groups,
        errors: Vec::new(),
    };
    let image = decoder.decode(&nhwc("vae.input"), &config);
    // The same network: whatever was measured above was measured on its activations. Two dozen convolutions one after
    // another, each as far apart as L2 allows.
    let apart = relative_l2(
        &image.to_vec_blocking::<f32>().unwrap(),
        &nhwc("vae.output").to_vec_blocking::<f32>().unwrap(),
    );
    assert!(apart <= 24.0 * L2, "another picture: {apart:.2e}");

    let mut wrong = Vec::new();
    for (name, plain, fast, worst) in &decoder.errors {
        if !(*plain <= L2 && *fast <= L2 && *worst <= WORST) {
            wrong.push(format!(
                "{name}: plain {plain:.2e}, Winograd {fast:.2e}, worst {worst:.2e}"
            ));
        }
    }
    assert!(decoder.errors.len() >= 20, "{}", decoder.errors.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
