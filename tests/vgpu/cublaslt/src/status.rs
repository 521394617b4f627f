//! Result codes and the numbers of cublasLt.h that the double knows.

/// A `cublasStatus_t`.
pub(crate) type Status = u32;

/// The result of a call.
pub(crate) type Res<T = ()> = Result<T, Status>;

pub(crate) const INVALID_VALUE: Status = 7;
pub(crate) const EXECUTION_FAILED: Status = 13;
pub(crate) const NOT_SUPPORTED: Status = 15;

/// A type of numbers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    F32,
    F16,
    Bf16,
}

impl Number {
    /// From a `cudaDataType_t`.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            2 => Some(Self::F16),
            14 => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The numbers in some bytes.
    pub(crate) fn read(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b));
        match self {
            Self::F32 => {
                let words = bytes.as_chunks().0.iter();
                words.map(|b| f32::from_le_bytes(*b)).collect()
            }
            Self::F16 => halves().map(|h| half::f16::from_bits(h).to_f32()).collect(),
            Self::Bf16 => halves()
                .map(|h| half::bf16::from_bits(h).to_f32())
                .collect(),
        }
    }

    /// Stores numbers, rounded to this type.
    pub(crate) fn write(self, numbers: &[f32], bytes: &mut [u8]) {
        for (number, to) in numbers.iter().zip(bytes.chunks_exact_mut(self.bytes())) {
            match self {
                Self::F32 => to.copy_from_slice(&number.to_le_bytes()),
                Self::F16 => to.copy_from_slice(&half::f16::from_f32(*number).to_le_bytes()),
                Self::Bf16 => to.copy_from_slice(&half::bf16::from_f32(*number).to_le_bytes()),
            }
        }
    }
}
