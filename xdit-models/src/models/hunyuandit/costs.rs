//! The costs of the blocks of a HunyuanDiT transformer, from its configuration: FLOPs of a step and bytes of parameters.

use xdit_kernels::{DType, WeightForm};
use xdit_pipefusion::Blocks;

use super::HunyuanConfig;
use super::embeddings::extra_channels;
use crate::layers::{ParameterCount, TIME_CHANNELS};
use crate::models::dit::{BlockRows, DitShape, RankTokens};

fn block_parameters(config: &HunyuanConfig, block: usize) -> ParameterCount {
    let (c, d) = (config.hidden_size(), config.attention_head_dim);
    let (text, inner) = (config.cross_attention_dim, config.ff_inner_dim);
    let skip = match config.skip_source(block) {
        Some(_) => ParameterCount::default().vector(4 * c).linear(c, 2 * c),
        None => ParameterCount::default(),
    };
    // Weight and bias of three norms, and twice those of queries and keys.
    let norms = skip.vector(3 * 2 * c).vector(2 * 4 * d).linear(c, c);
    let own = norms.linear(3 * c, c).linear(c, c);
    let cross = own.linear(c, c).linear(2 * c, text).linear(c, c);
    cross.linear(inner, c).linear(c, inner)
}

impl DitShape for HunyuanConfig {
    fn block_count(&self) -> usize {
        self.block_count()
    }

    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)> {
        let skips = blocks.iter().filter(|b| self.skip_source(*b).is_some());
        let skips = skips.count();
        vec![("plain", blocks.len() - skips), ("skip", skips)]
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size()
    }

    fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.attention_head_dim]
    }

    fn token_channels(&self) -> usize {
        self.token_channels()
    }

    fn shown_shape(&self, images: usize, [h, w]: [usize; 2]) -> Vec<usize> {
        vec![images, self.in_channels, h, w]
    }

    fn attentions(&self, _: usize) -> [usize; 2] {
        // Strategies do not handle the attention to the text, because every rank has all its keys.
        [1, 0]
    }

    fn stream_text(&self, _: usize) -> usize {
        0
    }

    /// The outputs that later blocks read are counted apart.
    fn block_rows(&self, _: usize, tokens: RankTokens) -> BlockRows {
        let image = tokens.image;
        let inner = self.ff_inner_dim.div_ceil(self.hidden_size().max(1));
        BlockRows {
            before: 8 * image,
            attention: 4 * image,
            after: (4 + inner) * image,
        }
    }

    fn modulation_values(&self) -> usize {
        self.block_count() * self.hidden_size()
    }

    /// Cosines and sines in f32.
    fn position_bytes(&self) -> usize {
        2 * self.attention_head_dim * DType::F32.size()
    }

    fn text_widths(&self) -> [usize; 2] {
        let widest = self.cross_attention_dim.max(self.cross_attention_dim_t5);
        [widest, self.cross_attention_dim]
    }

    fn text_kv_bytes(&self, dtype: DType) -> u64 {
        let factors = [2, self.text_tokens(), self.hidden_size(), dtype.size()];
        factors
            .iter()
            .fold(1, |bytes: u64, n| bytes.saturating_mul(*n as u64))
    }

    /// Returns the bytes of one block's parameters.
    fn block_bytes(&self, block: usize, dtype: DType) -> u64 {
        block_parameters(self, block).bytes(WeightForm::Dense(dtype))
    }

    fn reader(&self, block: usize) -> Option<usize> {
        self.reader(block)
    }

    /// Returns the bytes of all parameters of a stage with these blocks. They include the layers for timestep and text, which
    /// every stage has, and the ends of the transformer if the stage has them.
    fn stage_bytes(&self, blocks: &Blocks, dtype: DType) -> u64 {
        let (c, text, t5) = (
            self.hidden_size(),
            self.cross_attention_dim,
            self.cross_attention_dim_t5,
        );
        let time = ParameterCount::default()
            .linear(c, TIME_CHANNELS)
            .linear(c, c);
        let pooler = time
            .vector((1 + self.text_len_t5) * t5)
            .linear(3 * t5, t5)
            .linear(self.pooled_projection_dim, t5);
        let style = if self.style_and_size { c } else { 0 };
        let extra = pooler
            .vector(style)
            .linear(4 * c, extra_channels(self))
            .linear(c, 4 * c);
        let mut ends = extra
            .linear(4 * t5, t5)
            .linear(text, 4 * t5)
            .vector(self.text_tokens() * text);
        let channels = self.token_channels();
        if blocks.contains(0) {
            ends = ends.linear(c, channels);
        }
        if blocks.contains(self.block_count() - 1) {
            ends = ends.linear(2 * c, c).linear(channels, c);
        }
        blocks
            .iter()
            .fold(ends.bytes(WeightForm::Dense(dtype)), |sum, block| {
                sum.saturating_add(self.block_bytes(block, dtype))
            })
    }

    /// Returns the FLOPs of one block in a step, for one image. Image tokens pass through 6 c² multiplications besides the
    /// feed-forward layers, and 2 c² more with a skip. They attend to each other and to the text. The text's keys and values
    /// are computed once per image.
    fn block_flops(&self, block: usize, text: usize, image: usize) -> f64 {
        let (c, inner) = (self.hidden_size() as f64, self.ff_inner_dim as f64);
        let (text, image) = (text as f64, image as f64);
        let squares = if self.skip_source(block).is_some() {
            8.0
        } else {
            6.0
        };
        let linears = image * (squares * c * c + 2.0 * c * inner) + c * c;
        2.0 * linears + 4.0 * image * (image + text) * c
    }

    /// Returns the FLOPs of a step outside the blocks, for one image: before the first block and after the last.
    fn end_flops(&self, image: usize) -> [f64; 2] {
        let (c, image) = (self.hidden_size() as f64, image as f64);
        let tokens = 2.0 * image * self.token_channels() as f64 * c;
        [tokens, tokens + 4.0 * c * c]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;

    fn hub(style_and_size: bool) -> HunyuanConfig {
        let json = format!(
            r#"{{"hidden_size": 1408, "in_channels": 4, "mlp_ratio": 4.3637, "num_layers": 40, "patch_size": 2,
            "use_style_cond_and_image_meta_size": {style_and_size}}}"#
        );
        HunyuanConfig::read(&ConfigFile::parse("c", json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn bytes_are_those_of_the_real_models() {
        // All parameters of the hub's files without the rows of `proj_out` for the variance.
        for (config, parameters) in [(hub(true), V1_1), (hub(false), V1_2)] {
            let all = Blocks::from(0..40);
            let unread = 16 * (1408 + 1);
            let bytes = config.stage_bytes(&all, DType::F32);
            assert_eq!(bytes, 4 * (parameters - unread));
        }
    }

    const V1_1: u64 = 1_516_534_048;
    const V1_2: u64 = 1_499_952_032;

    #[test]
    fn stages_share_only_what_each_has() {
        let config = hub(false);
        let bytes = |blocks: &Blocks| config.stage_bytes(blocks, DType::F32);
        let folded = [Blocks::new([0..10, 30..40]), Blocks::from(10..30)];
        let twice = folded.iter().map(bytes).sum::<u64>() - bytes(&Blocks::from(0..40));
        let alone = |blocks: &Blocks| {
            let each = |block| config.block_bytes(block, DType::F32);
            bytes(blocks) - blocks.iter().map(each).sum::<u64>()
        };
        // The middle has neither end.
        assert_eq!(twice, alone(&folded[1]));
    }

    #[test]
    fn blocks_with_skips_cost_more() {
        let config = hub(false);
        let flops = |block| config.block_flops(block, 333, 4096);
        let c = 1408.0 * 1408.0;
        assert_eq!(flops(0), flops(20));
        assert!(((flops(21) - flops(20)) / (4.0 * 4096.0 * c) - 1.0).abs() <= 1e-9);
        let bytes = |block| config.block_bytes(block, DType::F32);
        assert_eq!(bytes(21) - bytes(20), 4 * (2 * 1408 * 1408 + 5 * 1408));
    }
}
