//! What a decoder takes in memory, as its configuration tells.

use xdit_kernels::{DType, WeightForm};

use super::VaeConfig;
use crate::layers::ParameterCount;

/// The most bytes that activations of the decoder take at a time, for each pixel of the picture.
///
/// A residual block from i to o channels holds its input, the input normalised and the first convolution's output
/// (2i + o), then the input, that output and its normalised form (i + 2o), then the input, the normalised form, the
/// shortcut and the result (i + 3o, or 3o without a shortcut); each level has a quarter of the next one's pixels. What a
/// level held is free in the next one and mostly too small for what that needs: as much is counted as a gap of the allocator's.
pub(crate) fn decoder_bytes_per_pixel(config: &VaeConfig, dtype: DType) -> u64 {
    let channels = &config.block_out_channels;
    let levels = channels.iter().enumerate().map(|(level, outputs)| {
        let inputs = *channels.get(level + 1).unwrap_or(outputs);
        let block = if inputs == *outputs {
            3 * outputs
        } else {
            (2 * inputs + outputs).max(inputs + 3 * outputs)
        };
        (block * dtype.size()) as u64 >> (2 * level)
    });
    let levels: Vec<u64> = levels.collect();
    let before = |level: usize| levels.get(level + 1).copied().unwrap_or(0);
    let with_gap = (0..levels.len()).map(|level| levels[level] + before(level));
    with_gap.max().unwrap_or(0)
}

/// Bytes of a decoder's parameters as they are packed: Winograd's form of a 3×3 convolution has 36 f32 for its 9 taps, and 1×1
/// convolutions are held in f32 whatever the dtype.
pub(crate) fn decoder_bytes(config: &VaeConfig, dtype: DType) -> u64 {
    let winograd = |outputs: usize, inputs: usize| {
        let weights = WeightForm::Winograd.matrix_bytes(outputs, inputs.saturating_mul(9));
        weights.saturating_add(4 * outputs as u64)
    };
    let matrix = |outputs, inputs, form| {
        ParameterCount::default()
            .linear(outputs, inputs)
            .bytes(form)
    };
    let pointwise = |outputs, inputs| matrix(outputs, inputs, WeightForm::Dense(DType::F32));
    let norm = |channels: usize| 8 * channels as u64;
    let resnet = |inputs: usize, outputs: usize| {
        let shortcut = match inputs == outputs {
            true => 0,
            false => pointwise(outputs, inputs),
        };
        norm(inputs)
            + winograd(outputs, inputs)
            + norm(outputs)
            + winograd(outputs, outputs)
            + shortcut
    };
    let deepest = config.block_out_channels.last().copied().unwrap_or(0);
    let (latent, last) = (config.latent_channels, config.block_out_channels.len() - 1);
    let attention = match config.mid_block_add_attention {
        true => norm(deepest) + matrix(4 * deepest, deepest, WeightForm::Dense(dtype)),
        false => 0,
    };
    let mut sum = winograd(deepest, latent) + 2 * resnet(deepest, deepest) + attention;
    if config.use_post_quant_conv {
        sum += pointwise(latent, latent);
    }
    let mut inputs = deepest;
    for (i, outputs) in config.block_out_channels.iter().rev().copied().enumerate() {
        sum += resnet(inputs, outputs) + config.layers_per_block as u64 * resnet(outputs, outputs);
        if i < last {
            sum += winograd(outputs, outputs);
        }
        inputs = outputs;
    }
    sum + norm(inputs) + winograd(config.out_channels, inputs)
}
