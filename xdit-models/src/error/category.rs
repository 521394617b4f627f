//! The kinds of errors.

use super::Error;

/// The kind of an [`Error`]. `xdit-cli` maps each kind to an exit code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorCategory {
    /// The folder, hub repository or revision does not exist, or is incomplete while offline.
    ModelNotFound,
    /// The hub requires an accepted licence.
    Gated,
    /// The model's files are incomplete, damaged or not supported.
    BadModel,
    /// An argument of the call is out of range.
    InvalidRequest,
    /// There is not enough memory.
    OutOfMemory,
    /// A result contains NaN or infinity.
    NotFinite,
    /// A callback or a [`CancelToken`](crate::CancelToken) ended the run.
    Stopped,
    /// A rank panicked or stopped answering.
    RankLost,
    /// The operating system or the network failed.
    Io,
    /// Code of the caller failed.
    Other,
    /// A kernel was called with wrong arguments: a bug of this library.
    Internal,
}

impl Error {
    /// Returns the kind of this error.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::{Error, ErrorCategory};
    /// let error = Error::Stopped { step: 3 };
    /// assert_eq!(error.category(), ErrorCategory::Stopped);
    /// ```
    #[must_use]
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::ModelNotFound { .. } | Self::IncompleteModel { .. } => {
                ErrorCategory::ModelNotFound
            }
            Self::Gated { .. } => ErrorCategory::Gated,
            Self::MissingFile { .. }
            | Self::BadFile { .. }
            | Self::BadConfig { .. }
            | Self::Unsupported { .. }
            | Self::BadTensor { .. } => ErrorCategory::BadModel,
            Self::InvalidRequest { .. } => ErrorCategory::InvalidRequest,
            Self::OutOfMemory { .. } | Self::DeviceOutOfMemory { .. } => ErrorCategory::OutOfMemory,
            Self::NotFinite { .. } => ErrorCategory::NotFinite,
            Self::Stopped { .. } | Self::Cancelled => ErrorCategory::Stopped,
            Self::Other(_) => ErrorCategory::Other,
            Self::Kernel(
                xdit_kernels::Error::OutOfMemory { .. }
                | xdit_kernels::Error::DeviceOutOfMemory { .. },
            ) => ErrorCategory::OutOfMemory,
            Self::Io { source, .. } | Self::Kernel(xdit_kernels::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::OutOfMemory =>
            {
                ErrorCategory::OutOfMemory
            }
            Self::Kernel(xdit_kernels::Error::Io { .. }) => ErrorCategory::Io,
            Self::Kernel(_) => ErrorCategory::Internal,
            Self::Rank { source, .. } => source.category(),
            Self::Comm(xdit_comm::Error::Degrees(_)) => ErrorCategory::InvalidRequest,
            Self::Comm(_) | Self::Lost { .. } => ErrorCategory::RankLost,
            Self::Io { .. } | Self::Hub { .. } | Self::NoThread { .. } => ErrorCategory::Io,
        }
    }
}
