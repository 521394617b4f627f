//! What several models are built of: packing of weights, normalisation layers, self-attention.

mod attention;
mod norm;
mod packing;

pub use packing::Packing;

pub(crate) use attention::{attend, attend_by};
pub(crate) use norm::{GroupNorm, LayerNorm};

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
