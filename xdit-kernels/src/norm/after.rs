//! What is done to a normalised row.

use crate::View;

/// What follows a LayerNorm of x `[.., c]`. Shapes are checked by the caller.
pub(super) enum After<'a> {
    /// Times weight `[c]` plus bias `[c]`: 1 and 0 where there is none.
    Affine {
        weight: Option<View<'a>>,
        bias: Option<View<'a>>,
    },
    /// Times 1 + scale, plus shift: `[b, c]` of x `[b, l, c]`.
    Modulate { shift: View<'a>, scale: View<'a> },
    /// Times weight `[c]`, plus shift `[b, c]` of x `[b, l, c]`.
    Shift { weight: View<'a>, shift: View<'a> },
}
