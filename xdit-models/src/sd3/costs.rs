//! What blocks of an SD3 transformer cost, as its configuration tells: FLOPs of a step and bytes of parameters.

use std::ops::Range;

use xdit_kernels::DType;

use super::Sd3Config;
use super::blocks::{MLP_RATIO, modulation_vectors};
use crate::layers::{Parameters, TIME_CHANNELS};

fn block_parameters(config: &Sd3Config, block: usize) -> Parameters {
    let (c, d) = (config.hidden_size(), config.attention_head_dim);
    let qkv = |sum: Parameters| {
        let sum = sum.linear(3 * c, c);
        sum.vector(if config.qk_norm { 2 * d } else { 0 })
    };
    let tail = |sum: Parameters| {
        sum.linear(c, c)
            .linear(MLP_RATIO * c, c)
            .linear(c, MLP_RATIO * c)
    };
    let [image, text] = modulation_vectors(config, block);
    let modulation = Parameters::default().linear((image + text) * c, c);
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

/// Bytes of one block's parameters.
pub(crate) fn block_bytes(config: &Sd3Config, block: usize, dtype: DType) -> u64 {
    block_parameters(config, block).bytes(dtype)
}

/// Bytes of all parameters that a stage of these blocks computes with: the embedding of timestep and pooled text too, which
/// every stage has, and the ends of the transformer where they are the stage's. The position table stays in its file.
pub(crate) fn stage_bytes(config: &Sd3Config, blocks: Range<usize>, dtype: DType) -> u64 {
    let c = config.hidden_size();
    let [channels_in, channels_out] = config.token_channels();
    let time = Parameters::default().linear(c, TIME_CHANNELS).linear(c, c);
    let mut ends = time.linear(c, config.pooled_projection_dim).linear(c, c);
    if blocks.start == 0 {
        ends = ends
            .linear(c, channels_in)
            .linear(c, config.joint_attention_dim);
    }
    if blocks.end == config.block_count() {
        ends = ends.linear(2 * c, c).linear(channels_out, c);
    }
    blocks.fold(ends.bytes(dtype), |sum, block| {
        sum.saturating_add(block_bytes(config, block, dtype))
    })
}

/// FLOPs of one block in a step, for one image: text and image tokens go through 12 c² multiplications each and meet in
/// attention. A text that is only read has 3 c², the image's own attention 4 c² more.
pub(crate) fn block_flops(config: &Sd3Config, block: usize, text: usize, image: usize) -> f64 {
    let c = config.hidden_size() as f64;
    let (text, image) = (text as f64, image as f64);
    let (dual, read) = (config.is_dual(block), config.is_context_pre_only(block));
    let squares = text * if read { 3.0 } else { 12.0 } + image * if dual { 16.0 } else { 12.0 };
    let own = if dual { image * image } else { 0.0 };
    let [image_vectors, text_vectors] = modulation_vectors(config, block);
    let modulation = (image_vectors + text_vectors) as f64;
    2.0 * (squares + modulation) * c * c + 4.0 * ((text + image) * (text + image) + own) * c
}

/// FLOPs of a step beside those of the blocks, for one image: before the first block, and after the last.
pub(crate) fn end_flops(config: &Sd3Config, image: usize) -> [f64; 2] {
    let (c, image) = (config.hidden_size() as f64, image as f64);
    let [channels_in, channels_out] = config.token_channels().map(|channels| channels as f64);
    [
        2.0 * image * channels_in * c,
        2.0 * image * c * channels_out + 4.0 * c * c,
    ]
}
