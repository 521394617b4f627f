//! Configuration of diffusers' `HunyuanDiT2DModel` (diffusers `models/transformers/hunyuan_transformer_2d.py`).

use crate::error::Result;
use crate::files::config::ConfigFile;

/// The number of heads of the attention that pools mT5's embeddings, in all models.
pub(super) const POOLER_HEADS: usize = 8;

/// The shape of a HunyuanDiT transformer. Every field is inside the range that [`HunyuanConfig::read`] documents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HunyuanConfig {
    /// Latent pixels along the side of the images that the model was made for.
    pub sample_size: usize,
    /// Latent pixels along each side of a token.
    pub patch_size: usize,
    /// Channels of the latents. The model predicts the same number of channels again for a variance, which pipelines ignore.
    pub in_channels: usize,
    /// Blocks, an even number.
    pub num_layers: usize,
    /// Width of one attention head.
    pub attention_head_dim: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward layers: `mlp_ratio` times that of the residual stream, rounded down.
    pub ff_inner_dim: usize,
    /// Width of BERT's embeddings, and of the text in the blocks.
    pub cross_attention_dim: usize,
    /// Width of mT5's embeddings.
    pub cross_attention_dim_t5: usize,
    /// Width of mT5's pooled embeddings.
    pub pooled_projection_dim: usize,
    /// Number of BERT tokens.
    pub text_len: usize,
    /// Number of mT5 tokens.
    pub text_len_t5: usize,
    /// Whether style and image sizes are embedded (up to v1.1) or not (v1.2).
    pub style_and_size: bool,
}

impl HunyuanConfig {
    /// Reads the configuration in `config`, with diffusers' defaults for absent fields.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) when a field is outside its range: 1–1024 heads of 4–1024 in steps of 4,
    /// 2–1024 blocks and an even number of them, widths up to 65536, patches of up to 64 latent pixels, up to 4096 tokens of
    /// each text, `hidden_size` the width of all heads, `cross_attention_dim_t5` divisible by the pooling's 8 heads;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for other `activation_fn`s than `gelu-approximate` and other
    /// `norm_type`s than `layer_norm`.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let width = |field, default| config.count(field, default, 1..=65536);
        let heads = config.count("num_attention_heads", Some(16), 1..=1024)?;
        let head_dim = config.count("attention_head_dim", Some(88), 4..=1024)?;
        if !head_dim.is_multiple_of(4) {
            let expected = "divisible by 4: a half for rows and a half for columns, in pairs";
            return Err(config.bad("attention_head_dim", expected));
        }
        let hidden = heads * head_dim;
        if hidden > 65536 {
            return Err(config.bad(
                "num_attention_heads",
                "such that heads × attention_head_dim is at most 65536",
            ));
        }
        if width("hidden_size", Some(1152))? != hidden {
            let expected = format!("{hidden}, num_attention_heads × attention_head_dim");
            return Err(config.bad("hidden_size", expected));
        }
        let num_layers = config.count("num_layers", Some(28), 2..=1024)?;
        if !num_layers.is_multiple_of(2) {
            let expected = "even: the first blocks' outputs are read again by the last ones";
            return Err(config.bad("num_layers", expected));
        }
        config.choice(
            "activation_fn",
            "gelu-approximate",
            &[("gelu-approximate", ())],
        )?;
        config.choice("norm_type", "layer_norm", &[("layer_norm", ())])?;
        if !config.flag("learn_sigma", true)? {
            let expected = "true: the pipeline takes half of the predicted channels for a variance";
            return Err(config.bad("learn_sigma", expected));
        }
        let t5 = width("cross_attention_dim_t5", Some(2048))?;
        if !t5.is_multiple_of(POOLER_HEADS) {
            let expected = format!("divisible by {POOLER_HEADS}, the heads of its pooling");
            return Err(config.bad("cross_attention_dim_t5", expected));
        }
        let mlp_ratio = config.number("mlp_ratio", 4.0, 0.0..=1024.0)?;
        let ff_inner_dim = (hidden as f64 * mlp_ratio) as usize;
        if !(1..=1 << 20).contains(&ff_inner_dim) {
            let expected = format!("such that {hidden} times it is from 1 to 1048576");
            return Err(config.bad("mlp_ratio", expected));
        }
        Ok(Self {
            sample_size: width("sample_size", Some(32))?,
            patch_size: config.count("patch_size", None, 1..=64)?,
            in_channels: width("in_channels", None)?,
            num_layers,
            attention_head_dim: head_dim,
            num_attention_heads: heads,
            ff_inner_dim,
            cross_attention_dim: width("cross_attention_dim", Some(1024))?,
            cross_attention_dim_t5: t5,
            pooled_projection_dim: width("pooled_projection_dim", Some(1024))?,
            text_len: config.count("text_len", Some(77), 1..=4096)?,
            text_len_t5: config.count("text_len_t5", Some(256), 1..=4096)?,
            style_and_size: config.flag("use_style_cond_and_image_meta_size", true)?,
        })
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

    /// Returns the number of text tokens that blocks read: BERT's, then mT5's.
    #[must_use]
    pub fn text_tokens(&self) -> usize {
        self.text_len + self.text_len_t5
    }

    /// Returns the number of values in a token of latents, and in its prediction.
    #[must_use]
    pub fn token_channels(&self) -> usize {
        self.patch_size * self.patch_size * self.in_channels
    }

    /// Returns the later block that reads the output of this one, besides the block after it.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::{ConfigFile, hunyuandit::HunyuanConfig};
    /// let json = br#"{"num_layers": 8, "hidden_size": 1408, "in_channels": 4, "patch_size": 2}"#;
    /// let config = HunyuanConfig::read(&ConfigFile::parse("config.json", json)?)?;
    /// let read_by: Vec<_> = (0..8).map(|block| config.reader(block)).collect();
    /// assert_eq!(read_by, [Some(7), Some(6), Some(5), None, None, None, None, None]);
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    #[must_use]
    pub fn reader(&self, block: usize) -> Option<usize> {
        (block + 1 < self.num_layers / 2).then(|| self.num_layers - 1 - block)
    }

    /// Returns the earlier block whose output this one reads.
    #[must_use]
    pub fn skip_source(&self, block: usize) -> Option<usize> {
        let source = (self.num_layers - 1).checked_sub(block)?;
        self.reader(source).map(|_| source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<HunyuanConfig> {
        HunyuanConfig::read(&ConfigFile::parse(
            "transformer/config.json",
            json.as_bytes(),
        )?)
    }

    #[test]
    fn the_hub_model_is_read() {
        let config = read(
            r#"{"_class_name": "HunyuanDiT2DModel", "activation_fn": "gelu-approximate", "hidden_size": 1408, "in_channels": 4,
            "learn_sigma": true, "mlp_ratio": 4.3637, "num_layers": 40, "patch_size": 2, "sample_size": 128}"#,
        )
        .unwrap();
        assert_eq!((config.hidden_size(), config.ff_inner_dim), (1408, 6144));
        assert_eq!((config.text_tokens(), config.token_channels()), (333, 16));
        assert!(config.style_and_size);
        let pairs: Vec<_> = (0..40)
            .filter_map(|b| Some((b, config.reader(b)?)))
            .collect();
        assert_eq!(pairs.len(), 19);
        assert!(pairs.iter().all(|(b, reader)| b + reader == 39));
        for (source, reader) in pairs {
            assert_eq!(config.skip_source(reader), Some(source));
        }
        assert_eq!([18, 19, 20].map(|b| config.skip_source(b)), [None; 3]);
        assert_eq!(config.skip_source(21), Some(18));
    }

    #[test]
    fn absurd_values_name_their_field() {
        let base = r#""hidden_size": 1408, "in_channels": 4, "patch_size": 2"#;
        for (json, field) in [
            (format!(r#"{{{base}, "num_layers": 5}}"#), "num_layers"),
            (format!(r#"{{{base}, "num_layers": 0}}"#), "num_layers"),
            (
                format!(r#"{{{base}, "num_attention_heads": 0}}"#),
                "num_attention_heads",
            ),
            (
                format!(r#"{{{base}, "attention_head_dim": 44}}"#),
                "hidden_size",
            ),
            (
                format!(r#"{{{base}, "attention_head_dim": 90}}"#),
                "attention_head_dim",
            ),
            (
                format!(r#"{{{base}, "num_attention_heads": 1024, "attention_head_dim": 1024}}"#),
                "num_attention_heads",
            ),
            (
                format!(r#"{{{base}, "learn_sigma": false}}"#),
                "learn_sigma",
            ),
            (format!(r#"{{{base}, "mlp_ratio": 0}}"#), "mlp_ratio"),
            (format!(r#"{{{base}, "mlp_ratio": -1}}"#), "mlp_ratio"),
            (
                format!(r#"{{{base}, "activation_fn": "geglu"}}"#),
                "activation_fn",
            ),
            (
                format!(r#"{{{base}, "norm_type": "ada_norm"}}"#),
                "norm_type",
            ),
            (
                format!(r#"{{{base}, "cross_attention_dim_t5": 2047}}"#),
                "cross_attention_dim_t5",
            ),
            (format!(r#"{{{base}, "text_len": 0}}"#), "text_len"),
            (
                r#"{"hidden_size": 1408, "patch_size": 2}"#.into(),
                "in_channels",
            ),
            (
                r#"{"hidden_size": 1408, "in_channels": 4}"#.into(),
                "patch_size",
            ),
        ] {
            let error = read(&json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("transformer/config.json: `{field}`")),
                "{json}: {error}"
            );
        }
    }
}
