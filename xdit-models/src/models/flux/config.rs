//! Configuration of diffusers' `FluxTransformer2DModel` (diffusers `models/transformers/transformer_flux.py`).

use crate::error::Result;
use crate::files::config::ConfigFile;

/// The shape of a Flux transformer. Every field is inside the range that [`FluxConfig::read`] documents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FluxConfig {
    /// Latent pixels along each side of a token. Flux packs 2×2 pixels outside the model, so this is 1.
    pub patch_size: usize,
    /// Channels of an input token of packed latents.
    pub in_channels: usize,
    /// Channels of an output token of packed latents.
    pub out_channels: usize,
    /// Double-stream blocks.
    pub num_layers: usize,
    /// Single-stream blocks.
    pub num_single_layers: usize,
    /// Width of one attention head.
    pub attention_head_dim: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the T5 embeddings.
    pub joint_attention_dim: usize,
    /// Width of the pooled CLIP embedding.
    pub pooled_projection_dim: usize,
    /// Whether the guidance scale is an input (FLUX.1-dev) or not (FLUX.1-schnell).
    pub guidance_embeds: bool,
    /// The number of components of a head that rotate with each of the three ids of a token.
    pub axes_dims_rope: [usize; 3],
}

impl FluxConfig {
    /// Reads the configuration in `config`, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) if a field is outside its range: 1–1024 heads of 2–1024 (even), at most
    /// 1024 blocks of each kind, widths up to 65536, `axes_dims_rope` three even numbers whose sum is the width of a head,
    /// channels that are a multiple of 4 (2×2 packing).
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let width = |field, default| config.count(field, Some(default), 1..=65536);
        let in_channels = width("in_channels", 64)?;
        let axes = config.counts("axes_dims_rope", &[16, 56, 56], 3..=3, 0..=1024)?;
        let parsed = Self {
            patch_size: config.count("patch_size", Some(1), 1..=1)?,
            in_channels,
            out_channels: config
                .optional_count("out_channels", 0..=65536)?
                .filter(|n| *n > 0)
                .unwrap_or(in_channels),
            num_layers: config.count("num_layers", Some(19), 0..=1024)?,
            num_single_layers: config.count("num_single_layers", Some(38), 0..=1024)?,
            attention_head_dim: config.count("attention_head_dim", Some(128), 2..=1024)?,
            num_attention_heads: config.count("num_attention_heads", Some(24), 1..=1024)?,
            joint_attention_dim: width("joint_attention_dim", 4096)?,
            pooled_projection_dim: width("pooled_projection_dim", 768)?,
            guidance_embeds: config.flag("guidance_embeds", false)?,
            axes_dims_rope: [axes[0], axes[1], axes[2]],
        };
        if parsed.block_count() == 0 {
            return Err(config.bad("num_layers", "such that there is a block of either kind"));
        }
        if parsed.hidden_size() > 65536 {
            return Err(config.bad(
                "num_attention_heads",
                "such that heads × attention_head_dim is at most 65536",
            ));
        }
        if axes.iter().any(|n| n % 2 != 0)
            || axes.iter().sum::<usize>() != parsed.attention_head_dim
        {
            let expected = format!(
                "three even numbers that add up to {}",
                parsed.attention_head_dim
            );
            return Err(config.bad("axes_dims_rope", expected));
        }
        for (field, channels) in [
            ("in_channels", parsed.in_channels),
            ("out_channels", parsed.out_channels),
        ] {
            if channels % 4 != 0 {
                return Err(config.bad(field, "a multiple of 4: latents are packed 2×2"));
            }
        }
        Ok(parsed)
    }

    /// Returns the number of blocks of both kinds. Double blocks come first.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.num_layers + self.num_single_layers
    }

    /// Returns the width of the residual stream: heads times head width.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<FluxConfig> {
        FluxConfig::read(&ConfigFile::parse(
            "transformer/config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn defaults_are_flux_schnell() {
        let config = read("{}").unwrap();
        assert_eq!(config.hidden_size(), 3072);
        assert_eq!((config.num_layers, config.num_single_layers), (19, 38));
        assert_eq!(config.out_channels, 64);
        assert!(!config.guidance_embeds);
        assert_eq!(config.axes_dims_rope, [16, 56, 56]);
    }

    #[test]
    fn absurd_values_name_their_field() {
        for (json, field) in [
            (r#"{"num_attention_heads": 0}"#, "num_attention_heads"),
            (r#"{"num_layers": 1000000000}"#, "num_layers"),
            (r#"{"attention_head_dim": 64}"#, "axes_dims_rope"),
            (r#"{"axes_dims_rope": [15, 57, 56]}"#, "axes_dims_rope"),
            (r#"{"axes_dims_rope": [64, 64]}"#, "axes_dims_rope"),
            (r#"{"in_channels": 63}"#, "in_channels"),
            (r#"{"patch_size": 2}"#, "patch_size"),
            (r#"{"num_attention_heads": 1024}"#, "num_attention_heads"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("transformer/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
