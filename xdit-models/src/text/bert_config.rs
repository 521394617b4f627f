//! Configuration of transformers' `BertModel` (transformers `models/bert/configuration_bert.py`).

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::layers::activation::{ACTIVATIONS, ActivationKind};

/// The shape of a BERT encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Rows of the position embedding: the longest prompt.
    pub max_position_embeddings: usize,
    /// Rows of the embedding of token types. Prompts have type 0.
    pub type_vocab_size: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: ActivationKind,
    /// Added to the variance in each LayerNorm.
    pub layer_norm_eps: f32,
}

impl BertConfig {
    /// Reads the configuration in `config`, with transformers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) when a field is outside its range: 1–1024 heads that divide
    /// `hidden_size`, 1–1024 layers, widths up to 65536, up to 2²⁴ tokens; for a decoder.
    /// [`Error::Unsupported`](crate::Error::Unsupported) for positions that are not `absolute`, as transformers 5 computes no other.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        config.choice("position_embedding_type", "absolute", &[("absolute", ())])?;
        for field in ["is_decoder", "add_cross_attention"] {
            if config.flag(field, false)? {
                return Err(config.bad(field, "false: only encoders are supported"));
            }
        }
        let width = |field, default| config.count(field, Some(default), 1..=65536);
        let parsed = Self {
            vocab_size: config.count("vocab_size", Some(30522), 1..=1 << 24)?,
            hidden_size: width("hidden_size", 768)?,
            intermediate_size: width("intermediate_size", 3072)?,
            num_hidden_layers: config.count("num_hidden_layers", Some(12), 1..=1024)?,
            num_attention_heads: config.count("num_attention_heads", Some(12), 1..=1024)?,
            max_position_embeddings: config.count(
                "max_position_embeddings",
                Some(512),
                1..=1 << 20,
            )?,
            type_vocab_size: config.count("type_vocab_size", Some(2), 1..=65536)?,
            hidden_act: config.choice("hidden_act", "gelu", ACTIVATIONS)?,
            layer_norm_eps: config.number("layer_norm_eps", 1e-12, 0.0..=1.0)? as f32,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<BertConfig> {
        BertConfig::read(&ConfigFile::parse(
            "text_encoder/config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn the_configuration_of_hunyuandit_loads() {
        let json = r#"{"architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
            "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
            "model_type": "bert", "num_attention_heads": 16, "num_hidden_layers": 24,
            "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": 47020}"#;
        let config = read(json).unwrap();
        assert_eq!((config.hidden_size, config.vocab_size), (1024, 47020));
        assert_eq!(config.hidden_act, ActivationKind::Gelu);
        assert_eq!(read("{}").unwrap().layer_norm_eps, 1e-12);
    }

    #[test]
    fn what_is_not_such_an_encoder_names_its_field() {
        for (json, field) in [
            (r#"{"num_attention_heads": 5}"#, "num_attention_heads"),
            (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers"),
            (
                r#"{"position_embedding_type": "relative_key"}"#,
                "position_embedding_type",
            ),
            (r#"{"is_decoder": true}"#, "is_decoder"),
            (r#"{"add_cross_attention": true}"#, "add_cross_attention"),
            (r#"{"hidden_act": "mish"}"#, "hidden_act"),
            (r#"{"type_vocab_size": 0}"#, "type_vocab_size"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("text_encoder/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
