//! The number types of kernels.

use half::{bf16, f16};

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F32,
    Bf16,
    F16,
}

impl Float {
    pub(super) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Elements of 16 bytes.
    pub(super) fn vector(self) -> usize {
        16 / self.size()
    }

    /// The address of an element.
    pub(super) fn at(self, first: u64, index: u64) -> u64 {
        first.wrapping_add(index.wrapping_mul(self.size() as u64))
    }

    pub(super) fn widen(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (Self::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            _ => unreachable!("the bytes of one number"),
        }
    }

    /// Rounds to nearest even and appends the bytes. NaN has no bytes here: those of a GPU are not those of the host.
    pub(super) fn narrow(self, x: f32, out: &mut Vec<u8>) -> Option<()> {
        if x.is_nan() {
            return None;
        }
        match self {
            Self::F32 => out.extend(x.to_le_bytes()),
            Self::Bf16 => out.extend(bf16::from_f32(x).to_le_bytes()),
            Self::F16 => out.extend(f16::from_f32(x).to_le_bytes()),
        }
        Some(())
    }
}
