use half::{bf16, f16};
use std::fmt;

/// Element type of a tensor. Kernels accumulate in f32 whatever the dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// Brain float: 8 exponent bits, 8 significand bits.
    BF16,
    /// IEEE half.
    F16,
    /// IEEE single.
    F32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::BF16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BF16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

mod sealed {
    /// Kernels trust [`Element`](super::Element) that its size and bits are those of its dtype, so nobody else may implement it.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// A Rust type that is an element type: f32, bf16 or f16. Sealed: kernels read and write as many bytes as its dtype has.
///
/// ```compile_fail,E0277
/// # use xdit_kernels::{DType, Element};
/// impl Element for u8 {
///     const DTYPE: DType = DType::F32;
///     fn from_f32(x: f32) -> Self { x as u8 }
///     fn to_f32(self) -> f32 { self.into() }
/// }
/// ```
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + fmt::Debug + PartialEq {
    /// Its [`DType`].
    const DTYPE: DType;
    /// Rounded to nearest even.
    fn from_f32(x: f32) -> Self;
    /// Exact.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}
