//! The memory of a decoder, from its configuration.

use xdit_kernels::conv2d::Conv2dOptions;
use xdit_kernels::{DType, Device, WeightForm};

use super::VaeConfig;
use crate::layers::ParameterCount;

/// Returns the largest number of bytes of the decoder's activations at a time, for each pixel of the image, and with them the gaps
/// of the processor's allocator: the freed memory of a level is mostly too small for the next one.
pub(crate) fn decoder_bytes_per_pixel(config: &VaeConfig, dtype: DType) -> u64 {
    let levels = levels(config, dtype);
    let before = |level: usize| levels.get(level + 1).copied().unwrap_or(0);
    let with_gap = (0..levels.len()).map(|level| levels[level] + before(level));
    with_gap.max().unwrap_or(0)
}

/// The same without gaps.
pub(crate) fn level_bytes_per_pixel(config: &VaeConfig, dtype: DType) -> u64 {
    levels(config, dtype).into_iter().max().unwrap_or(0)
}

/// Returns the bytes of each level's activations, for each pixel of the image.
///
/// A residual block from i to o channels holds its input, the normalised input and the first convolution's output (2i + o);
/// then the input, that output and its normalised form (i + 2o); then the input, the normalised form, the shortcut and the
/// result (i + 3o, or 3o without a shortcut). Each level has a quarter of the next one's pixels.
fn levels(config: &VaeConfig, dtype: DType) -> Vec<u64> {
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
    levels.collect()
}

/// Returns the bytes of a decoder's parameters in the forms in which kernels hold them, without padding.
pub(crate) fn decoder_bytes(config: &VaeConfig, dtype: DType, device: &Device) -> u64 {
    // No convolution of a decoder chooses an algorithm or a stride: their weights have the form of the default options.
    let conv = |outputs: usize, inputs: usize, size: usize| {
        let shape = [outputs, inputs, size, size];
        let form = Conv2dOptions::default().weight_form(shape, dtype, device);
        ParameterCount::default()
            .linear(outputs, inputs.saturating_mul(size * size))
            .bytes(form)
    };
    let norm = |channels: usize| 8 * channels as u64;
    let resnet = |inputs: usize, outputs: usize| {
        let shortcut = match inputs == outputs {
            true => 0,
            false => conv(outputs, inputs, 1),
        };
        norm(inputs)
            + conv(outputs, inputs, 3)
            + norm(outputs)
            + conv(outputs, outputs, 3)
            + shortcut
    };
    let deepest = config.block_out_channels.last().copied().unwrap_or(0);
    let (latent, last) = (config.latent_channels, config.block_out_channels.len() - 1);
    let attention = match config.mid_block_add_attention {
        true => {
            let projections = ParameterCount::default().linear(4 * deepest, deepest);
            norm(deepest) + projections.bytes(WeightForm::Dense(dtype))
        }
        false => 0,
    };
    let mut sum = conv(deepest, latent, 3) + 2 * resnet(deepest, deepest) + attention;
    if config.use_post_quant_conv {
        sum += conv(latent, latent, 1);
    }
    let mut inputs = deepest;
    for (i, outputs) in config.block_out_channels.iter().rev().copied().enumerate() {
        sum += resnet(inputs, outputs) + config.layers_per_block as u64 * resnet(outputs, outputs);
        if i < last {
            sum += conv(outputs, outputs, 3);
        }
        inputs = outputs;
    }
    sum + norm(inputs) + conv(config.out_channels, inputs, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;
    use crate::files::weights::{Scope, ZeroWeights};
    use crate::layers::Packing;
    use crate::vae::VaeDecoder;

    #[test]
    fn a_decoder_takes_what_its_configuration_tells() {
        for (channels, attention, quant, out) in [
            ("[8]", true, true, 3),
            ("[8, 16]", true, false, 3),
            ("[4, 8, 16, 16]", false, true, 8),
        ] {
            let levels = channels.split(',').count();
            let blocks = |name: &str| vec![format!("{name:?}"); levels].join(",");
            let config = format!(
                r#"{{"block_out_channels": {channels}, "norm_num_groups": 2, "latent_channels": 4,
                "mid_block_add_attention": {attention}, "use_post_quant_conv": {quant}, "out_channels": {out},
                "down_block_types": [{}], "up_block_types": [{}]}}"#,
                blocks("DownEncoderBlock2D"),
                blocks("UpDecoderBlock2D"),
            );
            let config = ConfigFile::parse("config.json", config.as_bytes()).unwrap();
            let config = VaeConfig::read(&config).unwrap();
            for dtype in [DType::F32, DType::BF16] {
                let weights = ZeroWeights::new(DType::F32);
                let packing = &mut Packing::sizes_only(dtype);
                VaeDecoder::load(&config, &Scope::root(&weights), packing).unwrap();
                assert_eq!(
                    decoder_bytes(&config, dtype, &Device::cpu()),
                    packing.bytes(),
                    "{channels} {dtype}"
                );
            }
        }
    }
}
