//! Encodes images to latents (diffusers `models/autoencoders/autoencoder_kl.py`, `vae.py`: `AutoencoderKL.encode`).

use xdit_kernels::{
    DType, Tensor,
    conv2d::{Conv2d, Conv2dOptions, Padding},
};

use super::bands::Whole;
use super::blocks::{MidBlock, ResnetBlock, conv_3x3};
use super::{VaeConfig, expect_channels};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{GroupNorm, Packing};
use crate::noise::{Generator, randn_tensor};
use crate::observer::Observer;

/// The encoder of an `AutoencoderKL`.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor};
/// use xdit_models::ConfigFile;
/// use xdit_models::layers::Packing;
/// use xdit_models::vae::{VaeConfig, VaeEncoder};
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"block_out_channels": [4, 8], "norm_num_groups": 2, "latent_channels": 4,
///     "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
///     "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
/// let config = VaeConfig::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let encoder = VaeEncoder::load(&config, &Scope::root(&weights), packing)?;
/// let image_bhwc = Tensor::zeros([1, 6, 10, 3], DType::F32, &Device::cpu())?;
/// let moments = encoder.forward(&image_bhwc, &mut ())?;
/// assert_eq!(moments.mean()?.shape(), [1, 3, 5, 4]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct VaeEncoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Option<Conv2d>,
    config: VaeConfig,
    dtype: DType,
}

/// `DownEncoderBlock2D`: residual blocks, then half the size except in the last.
#[derive(Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock>,
    downsampler: Option<Conv2d>,
}

/// The Gaussian that an encoder predicts for each latent value (diffusers `DiagonalGaussianDistribution`), f32.
#[derive(Clone, Debug)]
pub struct Moments {
    /// `[b, h, w, 2·latent_channels]`: means, then logarithms of variances.
    parameters_bhwc: Tensor,
}

impl VaeEncoder {
    /// Loads the encoder of this configuration. `weights` is the root of the whole autoencoder.
    ///
    /// # Errors
    /// [`Error::BadTensor`](crate::Error::BadTensor) for a tensor that is missing or wrong.
    pub fn load(
        config: &VaeConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (moments, groups) = (2 * config.latent_channels, config.norm_num_groups);
        let encoder = weights.child("encoder");
        let channels = &config.block_out_channels;
        let conv_in = conv_3x3(
            &encoder.child("conv_in"),
            channels[0],
            config.in_channels,
            packing,
        )?;
        let mut inputs = channels[0];
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (i, outputs) in channels.iter().copied().enumerate() {
            let scope = encoder.child("down_blocks").child(i);
            let resnets = (0..config.layers_per_block)
                .map(|j| {
                    let inputs = if j == 0 { inputs } else { outputs };
                    ResnetBlock::load(
                        &scope.child("resnets").child(j),
                        [inputs, outputs],
                        groups,
                        packing,
                    )
                })
                .collect::<Result<_>>()?;
            let downsampler = (i + 1 < channels.len())
                .then(|| {
                    let padding = Padding {
                        bottom: 1,
                        right: 1,
                        ..Padding::default()
                    };
                    let options = Conv2dOptions {
                        stride: 2,
                        padding,
                        ..Conv2dOptions::default()
                    };
                    packing.conv(
                        &scope.child("downsamplers.0.conv"),
                        [outputs, outputs, 3],
                        options,
                    )
                })
                .transpose()?;
            down_blocks.push(DownBlock {
                resnets,
                downsampler,
            });
            inputs = outputs;
        }
        let mid_block = MidBlock::load(&encoder.child("mid_block"), config, packing)?;
        let quant_conv = config
            .use_quant_conv
            .then(|| {
                packing.conv(
                    &weights.child("quant_conv"),
                    [moments, moments, 1],
                    Conv2dOptions::default(),
                )
            })
            .transpose()?;
        Ok(Self {
            conv_in,
            down_blocks,
            mid_block,
            conv_norm_out: GroupNorm::load(
                &encoder.child("conv_norm_out"),
                inputs,
                groups,
                packing,
            )?,
            conv_out: conv_3x3(&encoder.child("conv_out"), moments, inputs, packing)?,
            quant_conv,
            config: config.clone(),
            dtype: packing.dtype(),
        })
    }

    /// Returns the distribution of the latents. `observer` receives the stages under `vae.encoder`.
    ///
    /// # Shapes
    /// Images `[b, s·h, s·w, in_channels]` in [-1, 1] to latents `[b, h, w, latent_channels]`, where s is
    /// [`VaeConfig::scale_factor`].
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for another shape, or without memory for the activations.
    pub fn forward(&self, image_bhwc: &Tensor, observer: &mut dyn Observer) -> Result<Moments> {
        let _span = tracing::info_span!("vae_encoder").entered();
        expect_channels("vae encoder", image_bhwc, self.config.in_channels)?;
        observer.offer_picture("vae.encoder.input", image_bhwc)?;
        let whole = Whole::default();
        let mut hidden = self.conv_in.forward(&image_bhwc.to_dtype(self.dtype)?)?;
        observer.offer_picture("vae.encoder.conv_in", &hidden)?;
        for (i, block) in self.down_blocks.iter().enumerate() {
            let _span = tracing::debug_span!("down_block", i).entered();
            for resnet in &block.resnets {
                hidden = resnet.forward(hidden, &whole)?;
            }
            if let Some(conv) = &block.downsampler {
                hidden = conv.forward(&hidden)?;
            }
            observer.offer_picture(&format!("vae.encoder.down_blocks.{i}"), &hidden)?;
        }
        let hidden = self
            .mid_block
            .forward(hidden, &whole, "vae.encoder.mid_block", observer)?;
        let normed = self.conv_norm_out.forward(&hidden, true)?;
        drop(hidden);
        let mut parameters = self.conv_out.forward(&normed)?;
        if let Some(conv) = &self.quant_conv {
            parameters = conv.forward(&parameters)?;
        }
        let parameters_bhwc = parameters.to_dtype(DType::F32)?;
        observer.offer_picture("vae.encoder.moments", &parameters_bhwc)?;
        Ok(Moments { parameters_bhwc })
    }
}

impl Moments {
    /// Returns the predicted means and logarithms of variances: `[b, h, w, 2c]`.
    #[must_use]
    pub fn parameters(&self) -> &Tensor {
        &self.parameters_bhwc
    }

    /// Returns the most likely latents: `[b, h, w, c]`.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if there is no memory for them.
    pub fn mean(&self) -> Result<Tensor> {
        Ok(self
            .parameters_bhwc
            .narrow(3, 0, self.parameters_bhwc.dim(3) / 2)?)
    }

    /// Returns latents drawn with diffusers' noise: `[b, h, w, c]`. The noise is drawn as `[b, c, h, w]`, as in diffusers.
    ///
    /// # Errors
    /// As [`randn_tensor`].
    pub fn sample(&self, generators: &mut [Generator]) -> Result<Tensor> {
        let &[b, h, w, twice] = super::dims(&self.parameters_bhwc)?;
        let (c, device) = (twice / 2, self.parameters_bhwc.device());
        let noise: Vec<f32> = randn_tensor(&[b, c, h, w], generators)?;
        let noise = Tensor::from_slice(&noise, [b, c, h, w], device)?
            .view()
            .permute(&[0, 2, 3, 1])?
            .to_tensor()?;
        let parameters: Vec<f32> = self.parameters_bhwc.to_vec_blocking()?;
        let noise: Vec<f32> = noise.to_vec_blocking()?;
        let values: Vec<f32> =
            parameters
                .chunks(twice)
                .zip(noise.chunks(c))
                .flat_map(|(pixel, noise)| {
                    let (means, log_variances) = pixel.split_at(c);
                    means.iter().zip(log_variances).zip(noise).map(
                        |((mean, log_variance), noise)| {
                            mean + (0.5 * log_variance.clamp(-30.0, 20.0)).exp() * noise
                        },
                    )
                })
                .collect();
        Ok(Tensor::from_slice(&values, [b, h, w, c], device)?)
    }
}
