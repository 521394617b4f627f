//! What blocks of a HunyuanDiT transformer cost, as its configuration tells: FLOPs of a step and bytes of parameters.

use xdit_kernels::DType;
use xdit_pipefusion::Blocks;

use super::HunyuanConfig;
use super::embeddings::extra_channels;
use crate::layers::{Parameters, TIME_CHANNELS};

fn block_parameters(config: &HunyuanConfig, block: usize) -> Parameters {
    let (c, d) = (config.hidden_size(), config.attention_head_dim);
    let (text, inner) = (config.cross_attention_dim, config.ff_inner_dim);
    let skip = match config.skip_source(block) {
        Some(_) => Parameters::default().vector(4 * c).linear(c, 2 * c),
        None => Parameters::default(),
    };
    // Weight and bias of three norms, and of those of queries and keys, twice.
    let norms = skip.vector(3 * 2 * c).vector(2 * 4 * d).linear(c, c);
    let own = norms.linear(3 * c, c).linear(c, c);
    let cross = own.linear(c, c).linear(2 * c, text).linear(c, c);
    cross.linear(inner, c).linear(c, inner)
}

/// Bytes of one block's parameters.
pub(crate) fn block_bytes(config: &HunyuanConfig, block: usize, dtype: DType) -> u64 {
    block_parameters(config, block).bytes(dtype)
}

/// Bytes of all parameters that a stage of these blocks computes with: what reads timestep and text too, which every stage
/// has, and the ends of the transformer where they are the stage's.
pub(crate) fn stage_bytes(config: &HunyuanConfig, blocks: &Blocks, dtype: DType) -> u64 {
    let (c, text, t5) = (
        config.hidden_size(),
        config.cross_attention_dim,
        config.cross_attention_dim_t5,
    );
    let time = Parameters::default().linear(c, TIME_CHANNELS).linear(c, c);
    let pooler = time
        .vector((1 + config.text_len_t5) * t5)
        .linear(3 * t5, t5)
        .linear(config.pooled_projection_dim, t5);
    let style = if config.style_and_size { c } else { 0 };
    let extra = pooler
        .vector(style)
        .linear(4 * c, extra_channels(config))
        .linear(c, 4 * c);
    let mut ends = extra
        .linear(4 * t5, t5)
        .linear(text, 4 * t5)
        .vector(config.text_tokens() * text);
    let channels = config.token_channels();
    if blocks.contains(0) {
        ends = ends.linear(c, channels);
    }
    if blocks.contains(config.block_count() - 1) {
        ends = ends.linear(2 * c, c).linear(channels, c);
    }
    blocks.iter().fold(ends.bytes(dtype), |sum, block| {
        sum.saturating_add(block_bytes(config, block, dtype))
    })
}

/// FLOPs of one block in a step, for one image: image tokens go through 6 c² multiplications beside the feed-forward layers,
/// with a skip 2 c² more, and attend to each other and to the text. The text's own keys and values are made once an image.
pub(crate) fn block_flops(config: &HunyuanConfig, block: usize, text: usize, image: usize) -> f64 {
    let (c, inner) = (config.hidden_size() as f64, config.ff_inner_dim as f64);
    let (text, image) = (text as f64, image as f64);
    let squares = if config.skip_source(block).is_some() {
        8.0
    } else {
        6.0
    };
    let linears = image * (squares * c * c + 2.0 * c * inner) + c * c;
    2.0 * linears + 4.0 * image * (image + text) * c
}

/// FLOPs of a step beside those of the blocks, for one image: before the first block, and after the last.
pub(crate) fn end_flops(config: &HunyuanConfig, image: usize) -> [f64; 2] {
    let (c, image) = (config.hidden_size() as f64, image as f64);
    let tokens = 2.0 * image * config.token_channels() as f64 * c;
    [tokens, tokens + 4.0 * c * c]
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
            let bytes = stage_bytes(&config, &all, DType::F32);
            assert_eq!(bytes, 4 * (parameters - unread));
        }
    }

    const V1_1: u64 = 1_516_534_048;
    const V1_2: u64 = 1_499_952_032;

    #[test]
    fn stages_share_only_what_each_has() {
        let config = hub(false);
        let bytes = |blocks: &Blocks| stage_bytes(&config, blocks, DType::F32);
        let folded = [Blocks::new([0..10, 30..40]), Blocks::from(10..30)];
        let twice = folded.iter().map(bytes).sum::<u64>() - bytes(&Blocks::from(0..40));
        let alone = |blocks: &Blocks| {
            let each = |block| block_bytes(&config, block, DType::F32);
            bytes(blocks) - blocks.iter().map(each).sum::<u64>()
        };
        // The middle has neither end.
        assert_eq!(twice, alone(&folded[1]));
    }

    #[test]
    fn blocks_with_skips_cost_more() {
        let config = hub(false);
        let flops = |block| block_flops(&config, block, 333, 4096);
        let c = 1408.0 * 1408.0;
        assert_eq!(flops(0), flops(20));
        assert!(((flops(21) - flops(20)) / (4.0 * 4096.0 * c) - 1.0).abs() <= 1e-9);
        let bytes = |block| block_bytes(&config, block, DType::F32);
        assert_eq!(bytes(21) - bytes(20), 4 * (2 * 1408 * 1408 + 5 * 1408));
    }
}
