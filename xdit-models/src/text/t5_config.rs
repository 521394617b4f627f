//! Configuration of transformers' `T5EncoderModel` and `MT5EncoderModel` (transformers `models/t5/configuration_t5.py`,
//! `models/mt5/configuration_mt5.py`): mT5 is T5 with other sizes.

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::layers::activation::{ACTIVATIONS, ActivationKind};

/// The shape of a T5 encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one attention head; heads × `d_kv` need not be `d_model`.
    pub d_kv: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Rows of the table of relative position biases.
    pub relative_attention_num_buckets: usize,
    /// The distance from which all positions share the last bucket.
    pub relative_attention_max_distance: usize,
    /// Added to the mean square in each RMSNorm.
    pub layer_norm_epsilon: f32,
    /// Activation of the feed-forward layers.
    pub dense_act: ActivationKind,
    /// Whether the feed-forward layers multiply the activation with a second projection (T5 v1.1).
    pub is_gated_act: bool,
}

impl T5Config {
    /// Reads the configuration in `config`, with transformers' defaults for absent fields.
    ///
    /// As in transformers, activation and gating follow from `feed_forward_proj` alone (`dense_act_fn` and
    /// `is_gated_act` are derived again when a file holds them), and `gated-gelu` means the tanh formula.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) when a field is outside its range: 1–1024 heads and layers,
    /// widths up to 65536 (`d_ff` up to 2²⁰), up to 2²⁴ tokens, an even number of buckets.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        Self::read_as("T5EncoderModel", config)
    }

    /// As [`read`](Self::read), for an encoder of class `class`, as `model_index.json` names it: absent fields of
    /// `MT5EncoderModel` have other defaults. What `config` itself names in `architectures` has no effect, as in transformers.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_as(class: &str, config: &ConfigFile) -> Result<Self> {
        let ClassDefaults {
            feed_forward_proj,
            vocab_size,
            d_ff,
            num_layers,
            num_heads,
        } = ClassDefaults::of(class);
        let (dense_act, is_gated_act) =
            config.choice("feed_forward_proj", feed_forward_proj, &feed_forwards())?;
        let parsed = Self {
            vocab_size: config.count("vocab_size", Some(vocab_size), 1..=1 << 24)?,
            d_model: config.count("d_model", Some(512), 1..=65536)?,
            d_kv: config.count("d_kv", Some(64), 1..=1024)?,
            d_ff: config.count("d_ff", Some(d_ff), 1..=1 << 20)?,
            num_layers: config.count("num_layers", Some(num_layers), 1..=1024)?,
            num_heads: config.count("num_heads", Some(num_heads), 1..=1024)?,
            relative_attention_num_buckets: config.count(
                "relative_attention_num_buckets",
                Some(32),
                4..=65536,
            )?,
            relative_attention_max_distance: config.count(
                "relative_attention_max_distance",
                Some(128),
                2..=1 << 20,
            )?,
            layer_norm_epsilon: config.number("layer_norm_epsilon", 1e-6, 0.0..=1.0)? as f32,
            dense_act,
            is_gated_act,
        };
        if !parsed.relative_attention_num_buckets.is_multiple_of(2) {
            return Err(config.bad(
                "relative_attention_num_buckets",
                "an even number: half for each direction",
            ));
        }
        if parsed.relative_attention_max_distance <= parsed.relative_attention_num_buckets / 4 {
            let expected = format!(
                "more than {}: a quarter of the buckets",
                parsed.relative_attention_num_buckets / 4
            );
            return Err(config.bad("relative_attention_max_distance", expected));
        }
        Ok(parsed)
    }

    /// Returns the width of all heads together.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }
}

/// The defaults of transformers' two configuration classes, where they differ.
struct ClassDefaults {
    feed_forward_proj: &'static str,
    vocab_size: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
}

impl ClassDefaults {
    /// Returns the defaults of `MT5Config` for a class of mT5, otherwise those of `T5Config`.
    fn of(class: &str) -> Self {
        if class.starts_with("MT5") {
            Self {
                feed_forward_proj: "gated-gelu",
                vocab_size: 250_112,
                d_ff: 1024,
                num_layers: 8,
                num_heads: 6,
            }
        } else {
            Self {
                feed_forward_proj: "relu",
                vocab_size: 32128,
                d_ff: 2048,
                num_layers: 6,
                num_heads: 8,
            }
        }
    }
}

/// All values of `feed_forward_proj`: activation, and whether it is gated.
fn feed_forwards() -> Vec<(&'static str, (ActivationKind, bool))> {
    let mut choices = vec![
        ("gated-gelu", (ActivationKind::GeluTanh, true)),
        ("gated-gelu_new", (ActivationKind::GeluTanh, true)),
        ("gated-relu", (ActivationKind::Relu, true)),
        ("gated-silu", (ActivationKind::Silu, true)),
    ];
    choices.extend(
        ACTIVATIONS
            .iter()
            .map(|(name, kind)| (*name, (*kind, false))),
    );
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<T5Config> {
        T5Config::read(&ConfigFile::parse(
            "text_encoder_2/config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn xxl_loads_in_both_styles() {
        for dtype in ["torch_dtype", "dtype"] {
            let json = format!(
                r#"{{"architectures": ["T5EncoderModel"], "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64,
                "num_layers": 24, "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "{dtype}": "bfloat16"}}"#
            );
            let config = read(&json).unwrap();
            assert_eq!(config.inner_dim(), 4096);
            assert!(config.is_gated_act && config.dense_act == ActivationKind::GeluTanh);
        }
        let plain = read("{}").unwrap();
        assert!(!plain.is_gated_act && plain.dense_act == ActivationKind::Relu);
    }

    #[test]
    fn xl_of_mt5_loads_under_both_classes() {
        let sizes =
            r#""d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_heads": 32, "num_layers": 24"#;
        let rest = r#""feed_forward_proj": "gated-gelu", "vocab_size": 250112"#;
        let t5 = read(&format!(
            r#"{{"architectures": ["T5EncoderModel"], {sizes}, {rest}}}"#
        ));
        // What the file itself names has no effect.
        let file = format!(r#"{{"architectures": ["T5EncoderModel"], {sizes}}}"#);
        let mt5 = |json: &str| {
            T5Config::read_as(
                "MT5EncoderModel",
                &ConfigFile::parse("c", json.as_bytes()).unwrap(),
            )
        };
        assert_eq!(t5.unwrap(), mt5(&file).unwrap());
        let small = mt5("{}").unwrap();
        assert_eq!(
            (small.num_layers, small.num_heads, small.d_ff),
            (8, 6, 1024)
        );
    }

    #[test]
    fn absurd_values_name_their_field() {
        for (json, field) in [
            (r#"{"num_heads": 0}"#, "num_heads"),
            (r#"{"num_layers": 1000000000}"#, "num_layers"),
            (r#"{"d_ff": -5}"#, "d_ff"),
            (
                r#"{"feed_forward_proj": "gated-mish"}"#,
                "feed_forward_proj",
            ),
            (
                r#"{"relative_attention_num_buckets": 31}"#,
                "relative_attention_num_buckets",
            ),
            (
                r#"{"relative_attention_max_distance": 8}"#,
                "relative_attention_max_distance",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("text_encoder_2/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
