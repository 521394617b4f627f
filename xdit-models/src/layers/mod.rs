//! Layers that several models share: packing of weights, normalisation, self-attention, joint attention of text and image, and
//! the embedding of timesteps.

pub(crate) mod activation;
mod attention;
mod joint;
pub(crate) mod latents;
mod norm;
mod packing;
mod parameters;
mod progress;
mod table;
mod time_text;

pub use packing::Packing;

pub(crate) use attention::{attend, attend_by};
pub(crate) use joint::{EPS, Joint, byte_len, chunk};
pub(crate) use norm::{GroupNorm, LayerNorm};
pub(crate) use parameters::ParameterCount;
pub(crate) use progress::{Progress, Told, convolution, linear};
pub(crate) use table::rows_of;
pub(crate) use time_text::{Mlp, TIME_CHANNELS, TimeTextEmbed, sinusoid};
