//! The costs of the blocks of an SD3 transformer, from its configuration: FLOPs of a step and bytes of parameters.

use xdit_kernels::{DType, WeightForm};
use xdit_pipefusion::Blocks;

use super::Sd3Config;
use super::blocks::{MLP_RATIO, modulation_vectors};
use crate::layers::{ParameterCount, TIME_CHANNELS};
use crate::models::dit::{BlockRows, DitShape, RankTokens};

fn block_parameters(config: &Sd3Config, block: usize) -> ParameterCount {
    let (c, d) = (config.hidden_size(), config.attention_head_dim);
    let qkv = |sum: ParameterCount| {
        let sum = sum.linear(3 * c, c);
        sum.vector(if config.qk_norm { 2 * d } else { 0 })
    };
    let tail = |sum: ParameterCount| {
        sum.linear(c, c)
            .linear(MLP_RATIO * c, c)
            .linear(c, MLP_RATIO * c)
    };
    let [image, text] = modulation_vectors(config, block);
    let modulation = ParameterCount::default().linear((image + text) * c, c);
    // The joint attention's image and text.
    let mut sum = tail(qkv(qkv(modulation)));
    if config.is_dual(block) {
        sum = qkv(sum).linear(c, c);
    }
    if !config.is_context_pre_only(block) {
        sum = tail(sum);
    }
    sum
}

impl DitShape for Sd3Config {
    fn block_count(&self) -> usize {
        self.block_count()
    }

    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)> {
        let dual = blocks.iter().filter(|block| self.is_dual(*block)).count();
        match self.dual_attention_layers.is_empty() {
            true => vec![("joint", blocks.len())],
            false => vec![("dual", dual), ("joint", blocks.len() - dual)],
        }
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size()
    }

    fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.attention_head_dim]
    }

    fn token_channels(&self) -> usize {
        self.token_channels()[0]
    }

    fn shown_shape(&self, images: usize, [h, w]: [usize; 2]) -> Vec<usize> {
        vec![images, self.in_channels, h, w]
    }

    fn attentions(&self, block: usize) -> [usize; 2] {
        [1, usize::from(self.is_dual(block))]
    }

    /// A block holds the whole stream, and text and image before and after it.
    fn block_rows(&self, block: usize, tokens: RankTokens) -> BlockRows {
        let all = tokens.all();
        let RankTokens { text, image } = tokens;
        let projected = 5 * all + 4 * image;
        let finished = 3 * all + (3 + MLP_RATIO) * image;
        let text = 3 * all + image + (3 + MLP_RATIO) * text;
        // The image's own attention.
        let own = match self.is_dual(block) {
            true => 3 * all + 8 * image,
            false => 0,
        };
        BlockRows {
            before: projected.max(own).max(6 * all),
            attention: 5 * all,
            after: finished.max(text),
        }
    }

    fn modulation_values(&self) -> usize {
        let vectors = (0..self.block_count()).flat_map(|block| modulation_vectors(self, block));
        vectors.sum::<usize>() * self.hidden_size()
    }

    fn text_widths(&self) -> [usize; 2] {
        [self.joint_attention_dim, self.hidden_size()]
    }

    /// Returns the bytes of one block's parameters.
    fn block_bytes(&self, block: usize, dtype: DType) -> u64 {
        block_parameters(self, block).bytes(WeightForm::Dense(dtype))
    }

    /// Returns the bytes of all parameters of a stage with these blocks. They include the embedding of timestep and pooled
    /// text, which every stage has, and the ends of the transformer if the stage has them. The position table stays in its
    /// file.
    fn stage_bytes(&self, blocks: &Blocks, dtype: DType) -> u64 {
        let c = self.hidden_size();
        let [channels_in, channels_out] = self.token_channels();
        let time = ParameterCount::default()
            .linear(c, TIME_CHANNELS)
            .linear(c, c);
        let mut ends = time.linear(c, self.pooled_projection_dim).linear(c, c);
        if blocks.contains(0) {
            ends = ends
                .linear(c, channels_in)
                .linear(c, self.joint_attention_dim);
        }
        if blocks.contains(self.block_count() - 1) {
            ends = ends.linear(2 * c, c).linear(channels_out, c);
        }
        blocks
            .iter()
            .fold(ends.bytes(WeightForm::Dense(dtype)), |sum, block| {
                sum.saturating_add(self.block_bytes(block, dtype))
            })
    }

    /// Returns the FLOPs of one block in a step, for one image. Text and image tokens pass through 12 c² multiplications each
    /// and meet in attention. A text that is only read has 3 c². The image's own attention has 4 c² more.
    fn block_flops(&self, block: usize, text: usize, image: usize) -> f64 {
        let c = self.hidden_size() as f64;
        let (text, image) = (text as f64, image as f64);
        let (dual, read) = (self.is_dual(block), self.is_context_pre_only(block));
        let squares = text * if read { 3.0 } else { 12.0 } + image * if dual { 16.0 } else { 12.0 };
        let own = if dual { image * image } else { 0.0 };
        let [image_vectors, text_vectors] = modulation_vectors(self, block);
        let modulation = (image_vectors + text_vectors) as f64;
        2.0 * (squares + modulation) * c * c + 4.0 * ((text + image) * (text + image) + own) * c
    }

    /// Returns the FLOPs of a step outside the blocks, for one image: before the first block and after the last.
    fn end_flops(&self, image: usize) -> [f64; 2] {
        let (c, image) = (self.hidden_size() as f64, image as f64);
        let [channels_in, channels_out] = self.token_channels().map(|channels| channels as f64);
        [
            2.0 * image * channels_in * c,
            2.0 * image * c * channels_out + 4.0 * c * c,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;

    fn config(json: &str) -> Sd3Config {
        Sd3Config::read(&ConfigFile::parse("c", json.as_bytes()).unwrap()).unwrap()
    }

    fn medium() -> Sd3Config {
        config(
            r#"{"num_attention_heads": 24, "caption_projection_dim": 1536, "num_layers": 24, "qk_norm": "rms_norm",
            "dual_attention_layers": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}"#,
        )
    }

    #[test]
    fn bytes_are_those_of_the_real_models() {
        let large = r#"{"num_attention_heads": 38, "caption_projection_dim": 2432, "num_layers": 38,
            "qk_norm": "rms_norm"}"#;
        let first =
            r#"{"num_attention_heads": 24, "caption_projection_dim": 1536, "num_layers": 24}"#;
        // All parameters of the hub's files, and those of them that are biases and norms, which are f32 here.
        for (config, parameters, vectors) in [
            (config(first), 2_028_328_000, 1_102_912),
            (medium(), 2_243_171_520, 1_250_496),
            (config(large), 8_056_627_520, 2_777_408),
        ] {
            let all = 0..config.block_count();
            assert_eq!(
                config.stage_bytes(&all.clone().into(), DType::F32),
                4 * parameters
            );
            let half = config.stage_bytes(&all.into(), DType::BF16);
            assert_eq!(half, 2 * parameters + 2 * vectors);
        }
    }

    #[test]
    fn stages_share_only_what_each_has() {
        let config = medium();
        let halves: u64 = [0..11, 11..24]
            .into_iter()
            .map(|blocks| config.stage_bytes(&blocks.into(), DType::F32))
            .sum();
        let twice = halves - config.stage_bytes(&(0..24).into(), DType::F32);
        // Two layers of timestep and two of pooled text.
        assert_eq!(twice, 4 * 1536 * (256 + 1536 + 2048 + 1536 + 4));
    }

    #[test]
    fn dual_blocks_cost_more_and_the_last_less() {
        let config = medium();
        let flops = |block| config.block_flops(block, 333, 4096);
        assert!(flops(0) > flops(13) && flops(13) > flops(23));
        let c = 1536.0 * 1536.0;
        let own = 2.0 * (4096.0 * 4.0 + 3.0) * c + 4.0 * 4096.0 * 4096.0 * 1536.0;
        assert!(((flops(0) - flops(13)) / own - 1.0).abs() <= 1e-9);
        let read = 2.0 * (333.0 * 9.0 + 4.0) * c;
        assert!(((flops(13) - flops(23)) / read - 1.0).abs() <= 1e-9);
    }
}
