//! What several models are built of: packing of weights, normalisation layers, self-attention, joint attention of text and
//! image, the embedding of timesteps.

mod attention;
mod joint;
pub(crate) mod latents;
mod norm;
mod packing;
mod parameters;
mod progress;
mod time_text;

pub use packing::Packing;

pub(crate) use attention::{attend, attend_by};
pub(crate) use joint::{EPS, Joint, byte_len, chunk};
pub(crate) use norm::{GroupNorm, LayerNorm};
pub(crate) use parameters::Parameters;
pub(crate) use progress::{Progress, Told, convolution, linear};
pub(crate) use time_text::{Mlp, TIME_CHANNELS, TimeTextEmbed, sinusoid};

use xdit_kernels::activation::Activation;

use crate::activation::ActivationKind;

impl From<ActivationKind> for Activation {
    fn from(kind: ActivationKind) -> Self {
        match kind {
            ActivationKind::QuickGelu => Self::QuickGelu,
            ActivationKind::Gelu => Self::GeluErf,
            ActivationKind::GeluTanh => Self::GeluTanh,
            ActivationKind::Relu => Self::Relu,
            ActivationKind::Silu => Self::Silu,
        }
    }
}
