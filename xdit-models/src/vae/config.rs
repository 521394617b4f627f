//! Configuration of diffusers' `AutoencoderKL` (diffusers `models/autoencoders/autoencoder_kl.py`).

use crate::error::Result;
use crate::files::config::ConfigFile;

/// The shape of an `AutoencoderKL`.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of the input image of the encoder.
    pub in_channels: usize,
    /// Channels of the output image of the decoder.
    pub out_channels: usize,
    /// Channels at each resolution, from the finest to the coarsest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per resolution in the encoder. The decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of each GroupNorm.
    pub norm_num_groups: usize,
    /// Height and width in pixels of the images in its training, and of a tile.
    pub sample_size: usize,
    /// The factor of encoded latents, after the shift.
    pub scaling_factor: f32,
    /// The value that is subtracted from encoded latents. 0 if the model has none.
    pub shift_factor: f32,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks have self-attention.
    pub mid_block_add_attention: bool,
}

impl VaeConfig {
    /// Reads the configuration in `config`, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) when a field is outside its range: 1–8 resolutions, 1–16 layers
    /// each, up to 8192 channels that divide by `norm_num_groups`, a scale above 0;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for other block types, activations, or per-channel means.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let block_out_channels = config.counts("block_out_channels", &[64], 1..=8, 1..=8192)?;
        let levels = block_out_channels.len();
        for (field, block) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let types = config.texts(field, &[block], 1..=8)?;
            if types.iter().any(|name| name != block) {
                return Err(config.unsupported(field, [block].into_iter()));
            }
            if types.len() != levels {
                return Err(config.bad(
                    field,
                    format!("{levels} blocks, as many as block_out_channels"),
                ));
            }
        }
        config.choice("act_fn", "silu", &[("silu", ()), ("swish", ())])?;
        for field in ["latents_mean", "latents_std"] {
            if config.value(field).is_some() {
                return Err(config.unsupported(field, ["null"].into_iter()));
            }
        }
        let norm_num_groups = config.count("norm_num_groups", Some(32), 1..=8192)?;
        if block_out_channels
            .iter()
            .any(|channels| channels % norm_num_groups != 0)
        {
            return Err(config.bad(
                "block_out_channels",
                format!("multiples of norm_num_groups {norm_num_groups}"),
            ));
        }
        Ok(Self {
            in_channels: config.count("in_channels", Some(3), 1..=64)?,
            out_channels: config.count("out_channels", Some(3), 1..=64)?,
            block_out_channels,
            layers_per_block: config.count("layers_per_block", Some(1), 1..=16)?,
            latent_channels: config.count("latent_channels", Some(4), 1..=1024)?,
            norm_num_groups,
            sample_size: config.count("sample_size", Some(32), 1..=1 << 16)?,
            scaling_factor: config.number("scaling_factor", 0.18215, 1e-6..=1e6)? as f32,
            shift_factor: config
                .optional_number("shift_factor", -1e6..=1e6)?
                .unwrap_or(0.0) as f32,
            use_quant_conv: config.flag("use_quant_conv", true)?,
            use_post_quant_conv: config.flag("use_post_quant_conv", true)?,
            mid_block_add_attention: config.flag("mid_block_add_attention", true)?,
        })
    }

    /// Returns the number of image pixels along the side of one latent pixel.
    #[must_use]
    pub fn scale_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<VaeConfig> {
        VaeConfig::read(&ConfigFile::parse("vae/config.json", json.as_bytes())?)
    }

    #[test]
    fn flux_vae_loads() {
        let config = read(
            r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
            "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": false,
            "use_post_quant_conv": false, "latents_mean": null}"#,
        )
        .unwrap();
        assert_eq!(config.scale_factor(), 8);
        assert_eq!(config.shift_factor, 0.1159);
        assert!(!config.use_quant_conv && config.mid_block_add_attention);
    }

    #[test]
    fn absurd_values_name_their_field() {
        for (json, field) in [
            (r#"{"block_out_channels": []}"#, "block_out_channels"),
            (r#"{"block_out_channels": [64, 128]}"#, "down_block_types"),
            (r#"{"block_out_channels": [48]}"#, "block_out_channels"),
            (r#"{"norm_num_groups": 0}"#, "norm_num_groups"),
            (r#"{"layers_per_block": 1000000000}"#, "layers_per_block"),
            (r#"{"scaling_factor": 0}"#, "scaling_factor"),
            (r#"{"act_fn": "relu"}"#, "act_fn"),
            (
                r#"{"up_block_types": ["AttnUpDecoderBlock2D"]}"#,
                "up_block_types",
            ),
            (r#"{"latents_mean": [0.1]}"#, "latents_mean"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("vae/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
