use crate::dtype::{DType, FloatType};

/// What went wrong in a kernel or tensor operation: the operation, what it needs, what it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes that do not fit the operation or each other.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What it needs, in words or symbols.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A dtype that the operation does not take.
    #[error("{op}: expected dtype {expected}, got {got}")]
    DType {
        /// The operation.
        op: &'static str,
        /// What it needs.
        expected: String,
        /// What it was given.
        got: DType,
    },
    /// Tensors on different devices, or a device that is not there.
    #[error("{op}: {reason}")]
    Device {
        /// The operation.
        op: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The allocator refused.
    #[error("out of memory: {op} asked for {bytes} bytes")]
    OutOfMemory {
        /// The operation.
        op: &'static str,
        /// How much it asked for.
        bytes: usize,
    },
    /// A device has no memory for what was asked for.
    #[error(
        "out of memory on {device}: {op} asked for {}; the driver has {} of {} free, tensors use {}, and {} are kept in pieces \
         that are too small", mib(*bytes), mib(*free), mib(*total), mib(*in_use), mib(*cached)
    )]
    DeviceOutOfMemory {
        /// The operation.
        op: &'static str,
        /// The device.
        device: String,
        /// How many bytes it asked for.
        bytes: usize,
        /// Bytes that the driver has free, after everything that nothing uses was given back to it.
        free: usize,
        /// Bytes of the device.
        total: usize,
        /// Bytes that tensors and kernels of this program use.
        in_use: usize,
        /// Bytes that the program's pool keeps beside them.
        cached: usize,
    },
    /// A file that could not be opened or mapped.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system reported.
        source: std::io::Error,
    },
    /// An error of code outside this crate that implements [`Attention`](crate::attention::Attention): a lost peer, for
    /// example.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// Bytes for people.
fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A shape error; `expected` and `got` are formatted with `{}` and `{:?}`.
    pub fn shape(
        op: &'static str,
        expected: impl std::fmt::Display,
        got: impl std::fmt::Debug,
    ) -> Self {
        Self::Shape {
            op,
            expected: expected.to_string(),
            got: format!("{got:?}"),
        }
    }
}

// Checks of a dtype that can fail. They are in this file because an error holds a dtype: `dtype.rs` must not import `Error`
// back.
impl DType {
    /// This dtype as one that kernels compute with.
    ///
    /// # Errors
    /// [`Error::DType`], which names `op`, if it is none.
    pub(crate) fn float(self, op: &'static str) -> Result<FloatType> {
        match self {
            Self::BF16 => Ok(FloatType::BF16),
            Self::F16 => Ok(FloatType::F16),
            Self::F32 => Ok(FloatType::F32),
            other => Err(other.not_float(op)),
        }
    }

    pub(crate) fn not_float(self, op: &'static str) -> Error {
        Error::DType {
            op,
            expected: "bf16, f16 or f32".into(),
            got: self,
        }
    }
}
