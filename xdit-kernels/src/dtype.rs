use half::{bf16, f16};
use std::fmt;

/// Element type of a tensor. Kernels compute with [floats](Self::is_float), in f32 whatever the dtype; the others are what
/// tensors hold for them: token ids, masks, and the elements of quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// Brain float: 8 exponent bits, 8 significand bits.
    BF16,
    /// IEEE half.
    F16,
    /// IEEE single.
    F32,
    /// An unsigned byte, for masks.
    U8,
    /// An unsigned 32-bit integer, for token ids and row numbers.
    U32,
    /// A signed byte.
    I8,
    /// 4 exponent bits, 3 of the fraction, no infinity (OCP 8-bit floating point, E4M3). Tensors hold it; no kernel computes with it.
    F8E4M3,
    /// 5 exponent bits, 2 of the fraction (OCP 8-bit floating point, E5M2). Tensors hold it; no kernel computes with it.
    F8E5M2,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::BF16 | Self::F16 => 2,
            Self::F32 | Self::U32 => 4,
        }
    }

    /// Whether kernels compute with it: bf16, f16 and f32.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::BF16 | Self::F16 | Self::F32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BF16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::U8 => "u8",
            Self::U32 => "u32",
            Self::I8 => "i8",
            Self::F8E4M3 => "f8e4m3",
            Self::F8E5M2 => "f8e5m2",
        })
    }
}

/// A [`DType`] that kernels compute with, as the check `DType::float` returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatType {
    BF16,
    F16,
    F32,
}

impl FloatType {
    /// Bytes of one element.
    pub(crate) const fn size(self) -> usize {
        DType::size(self.dtype())
    }

    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::BF16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }
}

mod sealed {
    /// Kernels rely on an [`Element`](super::Element) having the size and the bits of its dtype, so only this crate
    /// implements it.
    pub trait Sealed: Sized {
        /// The number, if this type holds every float exactly, as f32 alone does.
        fn widened(_: f32) -> Option<Self> {
            None
        }
    }
    impl Sealed for f32 {
        fn widened(x: f32) -> Option<Self> {
            Some(x)
        }
    }
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
    impl Sealed for u8 {}
    impl Sealed for u32 {}
    impl Sealed for i8 {}
}

/// A Rust type that is an element type: f32, bf16, f16, u8, u32 or i8. Sealed: kernels read and write as many bytes as its
/// dtype has.
///
/// ```compile_fail,E0277
/// # use xdit_kernels::{DType, Element};
/// impl Element for u16 {
///     const DTYPE: DType = DType::F16;
/// }
/// ```
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + fmt::Debug + PartialEq {
    /// Its [`DType`].
    const DTYPE: DType;
}

/// An [`Element`] that kernels compute with: f32, bf16 or f16.
pub trait Float: Element {
    /// Rounded to nearest even.
    fn from_f32(x: f32) -> Self;
    /// Exact.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
}

impl Element for i8 {
    const DTYPE: DType = DType::I8;
}

impl Float for f32 {
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Float for bf16 {
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

impl Float for f16 {
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

/// `by_float!(op, dtype, T => expression)` evaluates the expression with `T` the dtype's element type; where kernels do not
/// compute with it, the calling function returns an error that names `op`.
macro_rules! by_float {
    ($op:expr, $dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::DType::BF16 => {
                type $t = half::bf16;
                $body
            }
            $crate::DType::F16 => {
                type $t = half::f16;
                $body
            }
            other => return Err(other.not_float($op)),
        }
    };
}
pub(crate) use by_float;
