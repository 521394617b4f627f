//! The costs of the blocks of a Flux transformer, from its configuration: FLOPs of a step and bytes of parameters.

use xdit_kernels::{DType, WeightForm};
use xdit_pipefusion::Blocks;

use super::FluxConfig;
use super::blocks::MLP_RATIO;
use crate::layers::{ParameterCount, TIME_CHANNELS};
use crate::models::dit::{BlockRows, DitShape, RankTokens};

fn block_parameters(config: &FluxConfig, block: usize) -> ParameterCount {
    let (c, d) = (config.hidden_size(), config.attention_head_dim);
    let none = ParameterCount::default();
    if block >= config.num_layers {
        return none
            .linear(3 * c, c)
            .linear(3 * c, c)
            .linear(MLP_RATIO * c, c)
            .linear(c, (1 + MLP_RATIO) * c)
            .vector(2 * d);
    }
    (0..2).fold(none, |streams, _| {
        streams
            .linear(6 * c, c)
            .linear(3 * c, c)
            .linear(c, c)
            .linear(MLP_RATIO * c, c)
            .linear(c, MLP_RATIO * c)
            .vector(2 * d)
    })
}

impl DitShape for FluxConfig {
    fn block_count(&self) -> usize {
        self.block_count()
    }

    fn kinds(&self, blocks: &Blocks) -> Vec<(&'static str, usize)> {
        let double = blocks
            .iter()
            .filter(|block| *block < self.num_layers)
            .count();
        vec![("double", double), ("single", blocks.len() - double)]
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size()
    }

    fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.attention_head_dim]
    }

    fn token_channels(&self) -> usize {
        self.in_channels
    }

    fn shown_shape(&self, images: usize, [h, w]: [usize; 2]) -> Vec<usize> {
        vec![images, h / 2 * (w / 2), self.in_channels]
    }

    fn attentions(&self, _: usize) -> [usize; 2] {
        [1, 0]
    }

    /// A single block ends with a layer that reads attention and feed-forward side by side. A double block holds the whole
    /// stream, and text and image before and after it.
    fn block_rows(&self, block: usize, tokens: RankTokens) -> BlockRows {
        let (all, image) = (tokens.all(), tokens.image);
        let (before, after) = match block < self.num_layers {
            true => (
                (5 * all + 4 * image).max(6 * all),
                3 * all + tokens.text + (3 + MLP_RATIO) * image,
            ),
            false => (8 * all, (5 + 2 * MLP_RATIO) * all),
        };
        BlockRows {
            before,
            attention: 5 * all,
            after,
        }
    }

    fn modulation_values(&self) -> usize {
        let single = self.block_count().saturating_sub(self.num_layers);
        (12 * self.num_layers + 3 * single) * self.hidden_size()
    }

    /// Cosines and sines in f32.
    fn position_bytes(&self) -> usize {
        2 * self.attention_head_dim * DType::F32.size()
    }

    fn text_widths(&self) -> [usize; 2] {
        [self.joint_attention_dim, self.hidden_size()]
    }

    /// Returns the bytes of one block's parameters.
    fn block_bytes(&self, block: usize, dtype: DType) -> u64 {
        block_parameters(self, block).bytes(WeightForm::Dense(dtype))
    }

    /// Returns the bytes of all parameters of a stage with these blocks. They include the embedding of timestep and pooled
    /// text, which every stage has, and the ends of the transformer if the stage has them.
    fn stage_bytes(&self, blocks: &Blocks, dtype: DType) -> u64 {
        let c = self.hidden_size();
        let guidance = usize::from(self.guidance_embeds);
        let time = (0..1 + guidance).fold(ParameterCount::default(), |sum, _| {
            sum.linear(c, TIME_CHANNELS).linear(c, c)
        });
        let mut ends = time.linear(c, self.pooled_projection_dim).linear(c, c);
        if blocks.contains(0) {
            ends = ends
                .linear(c, self.in_channels)
                .linear(c, self.joint_attention_dim);
        }
        if blocks.contains(self.block_count() - 1) {
            let out = self.patch_size * self.patch_size * self.out_channels;
            ends = ends.linear(2 * c, c).linear(out, c);
        }
        blocks
            .iter()
            .fold(ends.bytes(WeightForm::Dense(dtype)), |sum, block| {
                sum.saturating_add(self.block_bytes(block, dtype))
            })
    }

    /// Returns the FLOPs of one block in a step, for one image. Text and image tokens pass through its matrices and meet in
    /// attention. Both kinds of blocks have 12 c² multiplications per token.
    fn block_flops(&self, block: usize, text: usize, image: usize) -> f64 {
        let c = self.hidden_size() as f64;
        let tokens = (text + image) as f64;
        let modulation = if block < self.num_layers { 12.0 } else { 3.0 };
        24.0 * tokens * c * c + 4.0 * tokens * tokens * c + 2.0 * modulation * c * c
    }

    /// Returns the FLOPs of a step outside the blocks, for one image: before the first block and after the last.
    fn end_flops(&self, image: usize) -> [f64; 2] {
        let (c, image) = (self.hidden_size() as f64, image as f64);
        [
            2.0 * image * self.in_channels as f64 * c,
            2.0 * image * c * self.out_channels as f64 + 4.0 * c * c,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;

    #[test]
    fn flux_dev_has_twelve_billion_parameters() {
        let json = br#"{"guidance_embeds": true}"#;
        let config = FluxConfig::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        // Its files hold 11,901,408,320 parameters of bf16; here biases and norms are f32.
        let bytes = config.stage_bytes(&(0..57).into(), DType::BF16) as f64;
        assert!(
            (bytes / (2.0 * 11_901_408_320.0) - 1.0).abs() <= 1e-3,
            "{bytes}"
        );
        let halves: u64 = [0..28, 28..57]
            .into_iter()
            .map(|blocks| config.stage_bytes(&blocks.into(), DType::F32))
            .sum();
        // What every stage has is counted twice.
        let twice = halves - config.stage_bytes(&(0..57).into(), DType::F32);
        assert!(twice > 0 && twice < 150_000_000, "{twice}");
        assert!(config.block_bytes(0, DType::BF16) > 2 * config.block_bytes(56, DType::BF16));
        let [double, single] = [0, 56].map(|block| config.block_flops(block, 512, 4096));
        assert!((double / single - 1.0).abs() <= 1e-3);
    }
}
