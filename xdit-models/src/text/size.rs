//! The memory of text encoders, from their configurations.

use xdit_kernels::{DType, WeightForm};

use super::{BertConfig, ClipTextConfig, T5Config};
use crate::layers::ParameterCount;

/// The memory of an encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncoderSize {
    /// The number of its parameters, including tables that stay in their files.
    parameters: ParameterCount,
    /// The number of parameters that are f32 when the others are f16.
    wide: usize,
    /// The largest number of values in memory at a time, for each token of a prompt.
    row: usize,
}

impl EncoderSize {
    /// Returns the bytes of its weights.
    pub(crate) fn bytes(&self, dtype: DType) -> u64 {
        let more = match dtype {
            DType::F16 => DType::F32.size() - DType::F16.size(),
            _ => 0,
        };
        let wide = (self.wide as u64).saturating_mul(more as u64);
        self.parameters
            .bytes(WeightForm::Dense(dtype))
            .saturating_add(wide)
    }

    /// Returns the largest number of bytes in memory at a time, for each token of a prompt.
    pub(crate) fn row_bytes(&self, dtype: DType) -> usize {
        let each = match dtype {
            DType::F16 if self.wide > 0 => DType::F32,
            other => other,
        };
        self.row.saturating_mul(each.size())
    }

    /// For blocks of pre- or post-norm attention and feed-forward layers: the stream, its normalised form, and either queries,
    /// keys, values and their attention, or the values between the feed-forward layers.
    fn new(parameters: ParameterCount, width: usize, inner: usize, between: usize) -> Self {
        Self {
            parameters,
            wide: 0,
            row: (2 * width).saturating_add(inner.saturating_mul(4).max(between)),
        }
    }
}

impl T5Config {
    /// Returns the memory of an encoder of this configuration.
    pub(crate) fn size(&self) -> EncoderSize {
        let (width, inner) = (self.d_model, self.inner_dim());
        let wide = if self.is_gated_act { 2 } else { 1 };
        let block = ParameterCount::default()
            .matrix(4 * inner, width)
            .matrix((wide + 1) * self.d_ff, width)
            .vector(2 * width);
        let parameters = block
            .times(self.num_layers)
            .matrix(self.vocab_size, width)
            .vector(self.relative_attention_num_buckets * self.num_heads)
            .vector(width);
        EncoderSize {
            wide: self
                .d_ff
                .saturating_mul(width)
                .saturating_mul(self.num_layers),
            ..EncoderSize::new(parameters, width, inner, 2 * self.d_ff)
        }
    }
}

impl ClipTextConfig {
    /// Returns the memory of an encoder of this configuration, with or without a text projection.
    pub(crate) fn size(&self, projection: bool) -> EncoderSize {
        let width = self.hidden_size;
        let table = self.vocab_size + self.max_position_embeddings;
        let projected = if projection { self.projection_dim } else { 0 };
        let parameters = block(width, self.intermediate_size)
            .times(self.num_hidden_layers)
            .matrix(table, width)
            .vector(2 * width)
            .matrix(projected, width);
        EncoderSize::new(parameters, width, width, 2 * self.intermediate_size)
    }
}

impl BertConfig {
    /// Returns the memory of an encoder of this configuration.
    pub(crate) fn size(&self) -> EncoderSize {
        let width = self.hidden_size;
        let table = self.vocab_size + self.max_position_embeddings + self.type_vocab_size;
        let parameters = block(width, self.intermediate_size)
            .times(self.num_hidden_layers)
            .matrix(table, width)
            .vector(2 * width);
        EncoderSize::new(parameters, width, width, 2 * self.intermediate_size)
    }
}

/// A block of CLIP or BERT.
fn block(width: usize, inner: usize) -> ParameterCount {
    ParameterCount::default()
        .linear(3 * width, width)
        .linear(width, width)
        .linear(inner, width)
        .linear(width, inner)
        .vector(4 * width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;

    fn file(json: &str) -> ConfigFile {
        ConfigFile::parse("config.json", json.as_bytes()).unwrap()
    }

    fn parameters(size: EncoderSize) -> u64 {
        size.bytes(DType::F32) / 4
    }

    #[test]
    fn parameters_are_those_of_the_real_models() {
        let xxl = r#"{"d_ff": 10240, "d_kv": 64, "d_model": 4096, "num_heads": 64, "num_layers": 24,
            "feed_forward_proj": "gated-gelu"}"#;
        let t5 = T5Config::read(&file(xxl)).unwrap().size();
        assert_eq!(parameters(t5), 4_762_310_656);
        // The last layers of its feed-forwards stay f32.
        let wide = 24 * 10_240 * 4096 * 2;
        assert_eq!(t5.bytes(DType::F16) - t5.bytes(DType::BF16), wide);
        let large = r#"{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
            "num_hidden_layers": 12, "projection_dim": 768, "vocab_size": 49408}"#;
        let clip = ClipTextConfig::read(&file(large)).unwrap();
        // The files count positions as a buffer, which is no parameter.
        assert_eq!(parameters(clip.size(false)), 123_060_480);
        assert_eq!(parameters(clip.size(true)), 123_060_480 + 768 * 768);
    }
}
