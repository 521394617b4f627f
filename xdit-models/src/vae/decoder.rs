//! Decodes latents to images (diffusers `models/autoencoders/autoencoder_kl.py`, `vae.py`: `AutoencoderKL.decode`).

use xdit_kernels::{
    DType, Tensor,
    conv2d::{Conv2d, Conv2dOptions, Padding},
};

use super::bands::{Bands, Framed, Whole};
use super::blocks::{MidBlock, ResnetBlock, conv_3x3};
use super::{VaeConfig, expect_channels};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{GroupNorm, Packing};
use crate::observer::Observer;

/// The decoder of an `AutoencoderKL`.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor};
/// use xdit_models::ConfigFile;
/// use xdit_models::layers::Packing;
/// use xdit_models::vae::{VaeConfig, VaeDecoder};
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"block_out_channels": [4, 8], "norm_num_groups": 2, "latent_channels": 4,
///     "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
///     "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
/// let config = VaeConfig::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let decoder = VaeDecoder::load(&config, &Scope::root(&weights), packing)?;
/// let latents_bhwc = Tensor::zeros([1, 3, 5, 4], DType::F32, &Device::cpu())?;
/// let image_bhwc = decoder.forward(&latents_bhwc, &mut ())?;
/// assert_eq!(image_bhwc.shape(), [1, 6, 10, 3]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct VaeDecoder {
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: VaeConfig,
    dtype: DType,
}

/// `UpDecoderBlock2D`: residual blocks, then twice the size except in the last.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Conv2d>,
}

impl VaeDecoder {
    /// Loads the decoder of this configuration. `weights` is the root of the whole autoencoder.
    ///
    /// # Errors
    /// [`Error::BadTensor`](crate::Error::BadTensor) for a tensor that is missing or wrong.
    pub fn load(
        config: &VaeConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (latent, groups) = (config.latent_channels, config.norm_num_groups);
        let decoder = weights.child("decoder");
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let post_quant_conv = config
            .use_post_quant_conv
            .then(|| {
                packing.conv(
                    &weights.child("post_quant_conv"),
                    [latent, latent, 1],
                    Conv2dOptions::default(),
                )
            })
            .transpose()?;
        let conv_in = conv_3x3(&decoder.child("conv_in"), channels[0], latent, packing)?;
        let mid_block = MidBlock::load(&decoder.child("mid_block"), config, packing)?;
        let mut inputs = channels[0];
        let mut up_blocks = Vec::with_capacity(channels.len());
        for (i, outputs) in channels.iter().copied().enumerate() {
            let scope = decoder.child("up_blocks").child(i);
            let resnets = (0..=config.layers_per_block)
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
            let upsampler = (i + 1 < channels.len())
                .then(|| {
                    let options = Conv2dOptions {
                        padding: Padding::all(1),
                        upsample: true,
                        ..Conv2dOptions::default()
                    };
                    packing.conv(
                        &scope.child("upsamplers.0.conv"),
                        [outputs, outputs, 3],
                        options,
                    )
                })
                .transpose()?;
            up_blocks.push(UpBlock { resnets, upsampler });
            inputs = outputs;
        }
        Ok(Self {
            post_quant_conv,
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::load(
                &decoder.child("conv_norm_out"),
                inputs,
                groups,
                packing,
            )?,
            conv_out: conv_3x3(
                &decoder.child("conv_out"),
                config.out_channels,
                inputs,
                packing,
            )?,
            config: config.clone(),
            dtype: packing.dtype(),
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Returns the images, with values around [-1, 1], f32. `observer` receives the stages under `vae.decoder`.
    ///
    /// # Shapes
    /// Latents `[b, h, w, latent_channels]` (already scaled and shifted) to `[b, s·h, s·w, out_channels]`, where s is
    /// [`VaeConfig::scale_factor`].
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for another shape, or without memory for the activations.
    pub fn forward(&self, latents_bhwc: &Tensor, observer: &mut dyn Observer) -> Result<Tensor> {
        self.forward_band(latents_bhwc, &Whole::default(), observer)
    }

    /// The rows of the pictures that this rank holds. The latents are whole; from the first convolution on nothing is.
    pub(crate) fn forward_band(
        &self,
        latents_bhwc: &Tensor,
        bands: &dyn Bands,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let _span = tracing::info_span!("vae_decoder").entered();
        expect_channels("vae decoder", latents_bhwc, self.config.latent_channels)?;
        let height = latents_bhwc.dim(1);
        let rows = bands.rows(height);
        let (from, to) = (rows.start.saturating_sub(1), height.min(rows.end + 1));
        let mut hidden = latents_bhwc
            .narrow(1, from, to - from)?
            .to_dtype(self.dtype)?;
        if let Some(conv) = &self.post_quant_conv {
            hidden = conv.forward(&hidden)?;
        }
        observer.offer_picture("vae.decoder.input", &hidden)?;
        let hidden = Framed::within(hidden, rows.start - from..rows.end - from).convolved(
            &self.conv_in,
            None,
            bands,
        )?;
        observer.offer_picture("vae.decoder.conv_in", &hidden)?;
        let mut hidden =
            self.mid_block
                .forward(hidden, bands, "vae.decoder.mid_block", observer)?;
        for (i, block) in self.up_blocks.iter().enumerate() {
            let _span = tracing::debug_span!("up_block", i).entered();
            hidden = block.forward(hidden, bands)?;
            observer.offer_picture(&format!("vae.decoder.up_blocks.{i}"), &hidden)?;
        }
        if observer.wants_tensors() {
            observer.offer_picture(
                "vae.decoder.conv_norm_out",
                &self.conv_norm_out.forward(&hidden, false)?,
            )?;
        }
        let normed = Framed::normalised(&self.conv_norm_out, &hidden, bands)?;
        drop(hidden);
        let image = normed
            .convolved(&self.conv_out, None, bands)?
            .to_dtype(DType::F32)?;
        observer.offer_picture("vae.decoder.sample", &image)?;
        Ok(image)
    }
}

impl UpBlock {
    fn forward(&self, x_bhwc: Tensor, bands: &dyn Bands) -> Result<Tensor> {
        let mut hidden = x_bhwc;
        for resnet in &self.resnets {
            hidden = resnet.forward(hidden, bands)?;
        }
        match &self.upsampler {
            Some(conv) => Framed::plain(hidden, bands)?.upsampled(conv, bands),
            None => Ok(hidden),
        }
    }
}
