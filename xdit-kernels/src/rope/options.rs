//! What is done to queries and keys.

use crate::View;

/// A norm over each head's row. Parameters are `[d]`, of any dtype.
#[derive(Debug, Clone, Copy)]
pub enum HeadNorm<'a> {
    /// RMS norm, times this weight.
    Rms(View<'a>),
    /// LayerNorm, times weight, plus bias.
    Layer {
        /// What the normalised row is multiplied by.
        weight: View<'a>,
        /// What is added then.
        bias: View<'a>,
    },
}

impl<'a> HeadNorm<'a> {
    pub(super) fn parameters(&self) -> [Option<View<'a>>; 2] {
        match *self {
            Self::Rms(weight) => [Some(weight), None],
            Self::Layer { weight, bias } => [Some(weight), Some(bias)],
        }
    }
}

/// What [`qk_norm_rope_into`](super::qk_norm_rope_into) does to queries and keys. Parameters may have any dtype.
#[derive(Debug, Clone, Copy, Default)]
pub struct QkNormRope<'a> {
    /// The queries' norm; `None`: queries are not normalised.
    pub norm_q: Option<HeadNorm<'a>>,
    /// The keys' norm; `None`: keys are not normalised.
    pub norm_k: Option<HeadNorm<'a>>,
    /// Added to the mean square, or to the variance.
    pub eps: f32,
    /// cos and sin, `[l, d]` each, as [`rope_table`](super::rope_table) makes them; `None`: no rotation.
    pub rope: Option<(View<'a>, View<'a>)>,
}
