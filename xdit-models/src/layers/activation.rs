//! The activation functions of the supported models, with their names in transformers and diffusers.

use xdit_kernels::activation::Activation;

/// The activation functions that the supported models use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ActivationKind {
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// GELU with the error function.
    Gelu,
    /// GELU with the tanh formula (transformers' `gelu_new` and `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
}

/// The names of the activation functions in transformers and diffusers.
pub(crate) const ACTIVATIONS: &[(&str, ActivationKind)] = &[
    ("quick_gelu", ActivationKind::QuickGelu),
    ("gelu", ActivationKind::Gelu),
    ("gelu_new", ActivationKind::GeluTanh),
    ("gelu_pytorch_tanh", ActivationKind::GeluTanh),
    ("relu", ActivationKind::Relu),
    ("silu", ActivationKind::Silu),
    ("swish", ActivationKind::Silu),
];

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
