//! `AutoencoderKL`, between latents and pictures. Pictures have their channels last inside.

mod bands;
mod blocks;
mod config;
mod decoder;
mod encoder;
mod tiling;

pub(crate) use bands::{Bands, Edges};
pub use config::VaeConfig;
pub use decoder::VaeDecoder;
pub use encoder::{Moments, VaeEncoder};
pub(crate) use tiling::Tiling;

use xdit_kernels::{DType, Tensor};

use crate::error::{Error, Result};

pub(crate) fn dims(x_bhwc: &Tensor) -> Result<&[usize; 4]> {
    x_bhwc
        .shape()
        .try_into()
        .map_err(|_| Error::Kernel(xdit_kernels::Error::shape("vae", "[b, h, w, c]", x_bhwc)))
}

fn expect_channels(op: &'static str, x_bhwc: &Tensor, channels: usize) -> Result<()> {
    match dims(x_bhwc)? {
        [_, _, _, c] if *c == channels => Ok(()),
        _ => Err(Error::Kernel(xdit_kernels::Error::shape(
            op,
            format!("[b, h, w, {channels}]"),
            x_bhwc,
        ))),
    }
}

/// The most bytes that activations of the decoder take at a time, for each pixel of the picture.
///
/// A residual block from i to o channels holds its input, the input normalised and the first convolution's output
/// (2i + o), then the input, that output and its normalised form (i + 2o), then the input, the normalised form, the
/// shortcut and the result (i + 3o, or 3o without a shortcut); each level has a quarter of the next one's pixels.
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
    levels.max().unwrap_or(0)
}
