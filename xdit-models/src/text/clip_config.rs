//! Configuration of transformers' `CLIPTextModel` (transformers `models/clip/configuration_clip.py`).

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::layers::activation::{ACTIVATIONS, ActivationKind};

/// The shape of a CLIP text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Width after the text projection, in models that have one.
    pub projection_dim: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Rows of the position embedding: the longest prompt.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: ActivationKind,
    /// Added to the variance in each LayerNorm.
    pub layer_norm_eps: f32,
    /// The token after a prompt. The value 2 means "the highest id of the row", for old checkpoints.
    pub eos_token_id: usize,
}

impl ClipTextConfig {
    /// Reads the configuration in `config`, with transformers' defaults for absent fields. Uses a nested `text_config` if there
    /// is one.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) when a field is outside its range: 1–1024 heads that divide
    /// `hidden_size`, 1–1024 layers, widths up to 65536, up to 2²⁴ tokens.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let nested = config.nested("text_config");
        let config = nested.as_ref().unwrap_or(config);
        let width = |field, default| config.count(field, Some(default), 1..=65536);
        let parsed = Self {
            vocab_size: config.count("vocab_size", Some(49408), 1..=1 << 24)?,
            hidden_size: width("hidden_size", 512)?,
            intermediate_size: width("intermediate_size", 2048)?,
            projection_dim: config
                .optional_count("projection_dim", 0..=65536)?
                .unwrap_or(512),
            num_hidden_layers: config.count("num_hidden_layers", Some(12), 1..=1024)?,
            num_attention_heads: config.count("num_attention_heads", Some(8), 1..=1024)?,
            max_position_embeddings: config.count(
                "max_position_embeddings",
                Some(77),
                1..=1 << 20,
            )?,
            hidden_act: config.choice("hidden_act", "quick_gelu", ACTIVATIONS)?,
            layer_norm_eps: config.number("layer_norm_eps", 1e-5, 0.0..=1.0)? as f32,
            eos_token_id: config.count("eos_token_id", Some(49407), 0..=1 << 24)?,
        };
        if !parsed
            .hidden_size
            .is_multiple_of(parsed.num_attention_heads)
        {
            return Err(config.bad(
                "num_attention_heads",
                format!("a divisor of hidden_size {}", parsed.hidden_size),
            ));
        }
        Ok(parsed)
    }

    /// Returns the width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ClipTextConfig> {
        ClipTextConfig::read(&ConfigFile::parse(
            "text_encoder/config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn both_styles_of_transformers_load() {
        let four = r#"{"architectures": ["CLIPTextModel"], "hidden_size": 768, "num_attention_heads": 12,
            "intermediate_size": 3072, "eos_token_id": 2, "torch_dtype": "bfloat16"}"#;
        let nested = r#"{"architectures": ["CLIPModel"], "text_config": {"hidden_size": 768,
            "num_attention_heads": 12, "intermediate_size": 3072, "eos_token_id": 2, "dtype": "bfloat16"}}"#;
        assert_eq!(read(four).unwrap(), read(nested).unwrap());
        assert_eq!(read(four).unwrap().head_dim(), 64);
        assert_eq!(read("{}").unwrap().eos_token_id, 49407);
    }

    #[test]
    fn absurd_values_name_their_field() {
        for (json, field) in [
            (r#"{"num_attention_heads": 0}"#, "num_attention_heads"),
            (r#"{"num_attention_heads": 7}"#, "num_attention_heads"),
            (r#"{"num_hidden_layers": 1000000000}"#, "num_hidden_layers"),
            (r#"{"hidden_act": "mish"}"#, "hidden_act"),
            (r#"{"layer_norm_eps": "small"}"#, "layer_norm_eps"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("text_encoder/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
