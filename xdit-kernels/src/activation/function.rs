//! Which activation functions there are.

/// Which function is applied to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// GELU in its tanh approximation, `gelu(approximate="tanh")` (arXiv:1606.08415).
    GeluTanh,
    /// GELU with the exact normal distribution, x·Φ(x).
    GeluErf,
    /// x·σ(1.702x), CLIP's.
    QuickGelu,
    /// x·σ(x), also called swish.
    Silu,
    /// max(x, 0).
    Relu,
}
