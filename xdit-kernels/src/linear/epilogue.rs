//! What a linear layer does to its sums before it rounds them.

use crate::{Shape, View, activation::Activation};

/// The operation that follows the product and the bias, in f32, before the result is rounded to its dtype.
///
/// Shapes are given for an output `[b, .., n]`. Operands may have any float dtype and any strides.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Epilogue<'a> {
    /// Nothing.
    #[default]
    None,
    /// An activation function.
    Activation(Activation),
    /// `residual + y`.
    Residual(View<'a>),
    /// `residual + gate·y`: the end of a DiT branch (adaLN-Zero, arXiv:2212.09748, section 3.2).
    GateResidual {
        /// `[b, n]`: one row for all tokens of a batch entry. `[1, n]` where the output is `[n]`.
        gate: View<'a>,
        /// `[b, .., n]`.
        residual: View<'a>,
    },
    /// `y·factor`, element by element: T5's gated GELU (arXiv:2002.05202).
    Mul(View<'a>),
}

impl<'a> Epilogue<'a> {
    /// The operands, each with the shape that it must have where the output has `shape`, which has at least one dim.
    pub(super) fn operands(&self, shape: &Shape) -> [Option<(View<'a>, Shape)>; 2] {
        match *self {
            Self::None | Self::Activation(_) => [None, None],
            Self::Residual(x) | Self::Mul(x) => [Some((x, *shape)), None],
            Self::GateResidual { gate, residual } => {
                let n = shape.last().copied().unwrap_or(0);
                let gate_shape = Shape::new(&[batch(shape), n]);
                [Some((gate, gate_shape)), Some((residual, *shape))]
            }
        }
    }
}

/// Number of batch entries, each of which has its own row of the gate, in an output of this shape.
pub(super) fn batch(shape: &[usize]) -> usize {
    match shape {
        [b, _, ..] => *b,
        _ => 1,
    }
}
