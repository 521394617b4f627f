//! The operations on pairs of elements and on single ones.

/// What is computed from a pair of elements.
#[derive(Clone, Copy)]
pub(super) enum Combine {
    Add,
    Sub,
    Mul,
    AddScaled(f32),
    /// a·x + b·y.
    WeightedSum(f32, f32),
    /// From x alone, as all below.
    Scale(f32),
    /// a·x + b.
    ScaleShift(f32, f32),
    Divide(f32),
    /// From, to.
    Clamp(f32, f32),
}
