//! `AutoencoderKL`, between latents and pictures. Pictures have their channels last inside.

mod bands;
mod blocks;
mod config;
mod decoder;
mod encoder;
mod size;
mod tiling;

pub(crate) use bands::{Bands, Edges, Whole};
pub use config::VaeConfig;
pub use decoder::VaeDecoder;
pub use encoder::{Moments, VaeEncoder};
pub(crate) use size::{decoder_bytes, decoder_bytes_per_pixel, level_bytes_per_pixel};
pub(crate) use tiling::Tiling;

use xdit_kernels::Tensor;

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
