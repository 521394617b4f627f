//! Configuration of diffusers' `SD3Transformer2DModel` (diffusers `models/transformers/transformer_sd3.py`).

use crate::error::Result;
use crate::files::config::ConfigFile;

/// The shape of an SD3 transformer. Every field is inside the range that [`Sd3Config::read`] documents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sd3Config {
    /// Latent pixels along the side of the images that the model was made for.
    pub sample_size: usize,
    /// Latent pixels along each side of a token.
    pub patch_size: usize,
    /// Channels of the input latents.
    pub in_channels: usize,
    /// Channels of the output latents.
    pub out_channels: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Width of one attention head.
    pub attention_head_dim: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the text embeddings.
    pub joint_attention_dim: usize,
    /// Width of the pooled text embeddings: those of both CLIP encoders together.
    pub pooled_projection_dim: usize,
    /// Tokens along each side of the position table. An image uses the middle of it.
    pub pos_embed_max_size: usize,
    /// Blocks, in ascending order, in which the image also has an attention of its own (SD3.5-medium).
    pub dual_attention_layers: Vec<usize>,
    /// Whether queries and keys pass through an RMS norm (SD3.5) or not (SD3).
    pub qk_norm: bool,
}

impl Sd3Config {
    /// Reads the configuration in `config`, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) when a field is outside its range: 1–1024 heads of 1–1024, 1–1024
    /// blocks, widths up to 65536, patches of up to 64 latent pixels, position tables of up to 4096 tokens a side,
    /// `caption_projection_dim` the width of all heads; [`Error::Unsupported`](crate::Error::Unsupported) for a `qk_norm`
    /// other than `rms_norm`.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let width = |field, default| config.count(field, Some(default), 1..=65536);
        let in_channels = width("in_channels", 16)?;
        let given = config.fields().any(|field| field == "out_channels");
        let out_channels = match config.optional_count("out_channels", 1..=65536)? {
            Some(channels) => channels,
            // Null means the number of input channels.
            None if given => in_channels,
            None => 16,
        };
        let qk_norm = match config.value("qk_norm") {
            None => false,
            Some(_) => config.choice("qk_norm", "rms_norm", &[("rms_norm", true)])?,
        };
        let mut dual = config.counts("dual_attention_layers", &[], 0..=1024, 0..=1 << 20)?;
        let num_layers = config.count("num_layers", Some(18), 1..=1024)?;
        // diffusers asks each block whether its index is in the list, so other indices have no effect.
        dual.retain(|block| *block < num_layers);
        dual.sort_unstable();
        dual.dedup();
        let parsed = Self {
            sample_size: width("sample_size", 128)?,
            patch_size: config.count("patch_size", Some(2), 1..=64)?,
            in_channels,
            out_channels,
            num_layers,
            attention_head_dim: config.count("attention_head_dim", Some(64), 1..=1024)?,
            num_attention_heads: config.count("num_attention_heads", Some(18), 1..=1024)?,
            joint_attention_dim: width("joint_attention_dim", 4096)?,
            pooled_projection_dim: width("pooled_projection_dim", 2048)?,
            pos_embed_max_size: config.count("pos_embed_max_size", Some(96), 1..=4096)?,
            dual_attention_layers: dual,
            qk_norm,
        };
        let hidden = parsed.hidden_size();
        if hidden > 65536 {
            return Err(config.bad(
                "num_attention_heads",
                "such that heads × attention_head_dim is at most 65536",
            ));
        }
        if width("caption_projection_dim", 1152)? != hidden {
            let expected = format!("{hidden}, num_attention_heads × attention_head_dim");
            return Err(config.bad("caption_projection_dim", expected));
        }
        Ok(parsed)
    }

    /// Returns the number of blocks.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.num_layers
    }

    /// Returns the width of the residual stream: heads times head width.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Returns whether the image also has an attention of its own in this block.
    #[must_use]
    pub fn is_dual(&self, block: usize) -> bool {
        self.dual_attention_layers.binary_search(&block).is_ok()
    }

    /// Returns the number of attentions of this block: one, or two in a dual block.
    #[must_use]
    pub fn attentions(&self, block: usize) -> usize {
        1 + usize::from(self.is_dual(block))
    }

    /// Returns whether this block reads the text without changing it (`context_pre_only`). This is the case in the last block,
    /// because no block follows it.
    #[must_use]
    pub fn is_context_pre_only(&self, block: usize) -> bool {
        block + 1 == self.num_layers
    }

    /// Returns the number of values in an input token of latents and in an output token.
    #[must_use]
    pub fn token_channels(&self) -> [usize; 2] {
        let patch = self.patch_size * self.patch_size;
        [patch * self.in_channels, patch * self.out_channels]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Sd3Config> {
        Sd3Config::read(&ConfigFile::parse(
            "transformer/config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn defaults_are_diffusers() {
        let config = read("{}").unwrap();
        assert_eq!(config.hidden_size(), 1152);
        assert_eq!((config.block_count(), config.out_channels), (18, 16));
        assert_eq!(config.token_channels(), [64, 64]);
        assert!(!config.qk_norm && !config.is_dual(0));
        assert!(config.is_context_pre_only(17) && !config.is_context_pre_only(16));
        assert_eq!(read(r#"{"in_channels": 8}"#).unwrap().out_channels, 16);
        let null = r#"{"in_channels": 8, "out_channels": null, "qk_norm": null}"#;
        assert_eq!(read(null).unwrap().out_channels, 8);
    }

    #[test]
    fn dual_blocks_attend_twice() {
        let json = r#"{"dual_attention_layers": [2, 0, 2, 99], "qk_norm": "rms_norm"}"#;
        let config = read(json).unwrap();
        assert_eq!(config.dual_attention_layers, [0, 2]);
        assert_eq!([0, 1, 2, 3].map(|b| config.attentions(b)), [2, 1, 2, 1]);
        assert!(config.qk_norm);
    }

    #[test]
    fn absurd_values_name_their_field() {
        for (json, field) in [
            (r#"{"num_attention_heads": 0}"#, "num_attention_heads"),
            (r#"{"num_layers": 1000000000}"#, "num_layers"),
            (r#"{"num_layers": 0}"#, "num_layers"),
            (r#"{"attention_head_dim": 32}"#, "caption_projection_dim"),
            (r#"{"caption_projection_dim": 1}"#, "caption_projection_dim"),
            (
                r#"{"dual_attention_layers": [-1]}"#,
                "dual_attention_layers",
            ),
            (r#"{"qk_norm": "layer_norm"}"#, "qk_norm"),
            (r#"{"patch_size": 0}"#, "patch_size"),
            (r#"{"pos_embed_max_size": null}"#, "pos_embed_max_size"),
            (r#"{"pos_embed_max_size": 1000000}"#, "pos_embed_max_size"),
            (
                r#"{"num_attention_heads": 1024, "attention_head_dim": 1024}"#,
                "num_attention_heads",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("transformer/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
