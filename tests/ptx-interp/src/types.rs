//! The fundamental types of PTX.

/// A type as an opcode or a declaration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    F16x2,
    Bf16x2,
    Tf32,
    B64,
    U64,
    S64,
    F64,
}

impl Type {
    /// The type that the last part of an opcode or a directive names, such as `u32`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "pred" => Self::Pred,
            "b8" => Self::B8,
            "u8" => Self::U8,
            "s8" => Self::S8,
            "b16" => Self::B16,
            "u16" => Self::U16,
            "s16" => Self::S16,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "b32" => Self::B32,
            "u32" => Self::U32,
            "s32" => Self::S32,
            "f32" => Self::F32,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "b64" => Self::B64,
            "u64" => Self::U64,
            "s64" => Self::S64,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes in memory. A predicate has no place in memory and counts as one byte.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Pred | Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::B32
            | Self::U32
            | Self::S32
            | Self::F32
            | Self::F16x2
            | Self::Bf16x2
            | Self::Tf32 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    pub(crate) fn is_integer(self) -> bool {
        matches!(
            self,
            Self::B8
                | Self::U8
                | Self::S8
                | Self::B16
                | Self::U16
                | Self::S16
                | Self::B32
                | Self::U32
                | Self::S32
                | Self::B64
                | Self::U64
                | Self::S64
        )
    }
}

/// The low `size` bytes of a value.
pub(crate) fn truncated(value: u64, size: usize) -> u64 {
    if size >= 8 {
        value
    } else {
        value & ((1 << (size * 8)) - 1)
    }
}

/// The low `size` bytes of a value, as a signed number.
pub(crate) fn sign_extended(value: u64, size: usize) -> i64 {
    let shift = 64 - size.min(8) * 8;
    ((value << shift) as i64) >> shift
}

/// A value of a type as a register holds it: a signed one fills so many bytes.
pub(crate) fn extended(ty: Type, value: u64, filled: usize) -> u64 {
    if ty.is_signed() {
        truncated(sign_extended(value, ty.size()) as u64, filled)
    } else {
        value
    }
}
