//! What can go wrong, and into which [`ErrorCategory`] it falls.

mod from;

use std::path::PathBuf;

use xdit_kernels::DType;

use crate::quote;
pub(crate) use crate::quote::shorten;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong while a model was loaded or run.
///
/// Each message names the file, tensor, field or argument, what was expected and what was found. It is one line: what stands
/// in the fields is escaped and cut when it is displayed, see [`quote`].
/// [`Error::category`] groups the variants, for exit codes and for callers that only care about the kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither a folder on disk nor a repository of the hub.
    #[error("model not found: {}: {}", quote::name(model), quote::reason(reason))]
    ModelNotFound {
        /// The path or hub id (with its revision) that was asked for.
        model: String,
        /// Where was looked, and what was there.
        reason: String,
    },

    /// The hub's cache holds a part of what is asked for, and nothing else may be used.
    #[error(
        "{} is incomplete in the cache: it lacks {}{}",
        quote::name(model),
        quote::name(missing),
        quote::reason(cure)
    )]
    IncompleteModel {
        /// The hub id with its revision.
        model: String,
        /// A file that it lacks.
        missing: String,
        /// `; ` and how to complete it.
        cure: String,
    },

    /// The hub wants a licence accepted, or a token.
    #[error(
        "{} is gated (HTTP {status}): open {} in a browser, accept its licence, and pass a token of that account \
         (HF_TOKEN)",
        quote::name(repo),
        quote::name(page)
    )]
    Gated {
        /// The hub id.
        repo: String,
        /// The status of the answer: 401 or 403.
        status: u16,
        /// The page where the licence is accepted.
        page: String,
    },

    /// The hub could not be reached, or answered with something unexpected.
    #[error("hub: {}: {}", quote::name(what), quote::reason(reason))]
    Hub {
        /// What was asked of it.
        what: String,
        /// How it failed.
        reason: String,
    },

    /// A pipeline lacks a file that it must have.
    #[error(
        "{}: no such file in the pipeline{}",
        quote::name(file),
        quote::reason(hint)
    )]
    MissingFile {
        /// The file, with the pipeline's path.
        file: String,
        /// Empty, or `; ` and what else was looked for.
        hint: String,
    },

    /// A file that cannot be what its name says.
    #[error("{}: {}", quote::name(file), quote::reason(reason))]
    BadFile {
        /// The file, with the pipeline's path.
        file: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A field of a JSON configuration with an impossible value.
    #[error(
        "{}: `{}` must be {}, found {}",
        quote::name(file),
        quote::shorten(field),
        quote::reason(expected),
        quote::shorten(found)
    )]
    BadConfig {
        /// The file, with the pipeline's path.
        file: String,
        /// The field.
        field: String,
        /// Which values are allowed.
        expected: String,
        /// The value in the file.
        found: String,
    },

    /// A class, or an option of one, that this version does not implement.
    #[error(
        "{}: `{}` {} is not supported; supported: {}",
        quote::name(file),
        quote::shorten(field),
        quote::shorten(found),
        quote::reason(supported)
    )]
    Unsupported {
        /// The file, with the pipeline's path.
        file: String,
        /// The field.
        field: String,
        /// The value in the file.
        found: String,
        /// Every value that is supported.
        supported: String,
    },

    /// A tensor that is missing, or of the wrong shape, dtype or content.
    #[error(
        "{}: tensor `{}`: expected {}, found {}",
        quote::name(file),
        quote::shorten(tensor),
        quote::reason(expected),
        quote::reason(found)
    )]
    BadTensor {
        /// The weights file, with the pipeline's path.
        file: String,
        /// The tensor's name in the file.
        tensor: String,
        /// What the model needs.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// An argument of a call that the model cannot serve.
    #[error(
        "`{argument}` = {}: must be {}",
        quote::shorten(given),
        quote::reason(allowed)
    )]
    InvalidRequest {
        /// The argument, in diffusers' words.
        argument: &'static str,
        /// The value that was given (shortened when long).
        given: String,
        /// Which values are allowed.
        allowed: String,
    },

    /// A result with NaN or infinity in it, which the request does not allow.
    #[error("the result is not finite (NaN or infinity): that begins in {origin}; {}", room(*.dtype))]
    NotFinite {
        /// The component where it begins, of which step, and whose result it is.
        origin: String,
        /// Of weights and activations.
        dtype: DType,
    },

    /// More memory was needed than there is.
    #[error("out of memory: {} needs {bytes} bytes", quote::name(what))]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// How much was asked for.
        bytes: u64,
    },

    /// The system started no thread.
    #[error("no thread for {what}: {reason} (limits: ulimit -u, pids.max of a container)")]
    NoThread {
        /// What it was for.
        what: String,
        /// The system's reason.
        reason: String,
    },

    /// A callback ended the run.
    #[error("stopped by the callback after step {step}")]
    Stopped {
        /// The last step that was finished, counted from 1.
        step: usize,
    },

    /// One rank of a run failed, and with it the run.
    #[error("{}: {source}", quote::name(rank))]
    Rank {
        /// The rank and its coordinates on the mesh.
        rank: String,
        /// What went wrong there.
        source: Box<Self>,
    },

    /// Why a rank is lost that came to no error of its own: it panicked, left, or stopped answering. [`Error::Rank`] says which.
    #[error("{0}")]
    Lost(xdit_comm::Loss),

    /// Ranks lost each other, or degrees that make no mesh.
    #[error(transparent)]
    Comm(xdit_comm::Error),

    /// A kernel failed: no memory, or shapes that do not fit (a fault of this library).
    #[error(transparent)]
    Kernel(#[from] xdit_kernels::Error),

    /// The operating system refused to read or write.
    #[error("{}: {source}", quote::name(&path.display().to_string()))]
    Io {
        /// The path.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
}

/// The kind of an [`Error`]; `xdit-cli` gives each an exit code of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorCategory {
    /// No such folder, hub repository or revision; or only a part of it, offline.
    ModelNotFound,
    /// The hub wants a licence accepted.
    Gated,
    /// The model's files are incomplete, damaged, or of a kind that is not supported.
    BadModel,
    /// An argument of the call is out of its range.
    InvalidRequest,
    /// More memory was needed than there is.
    OutOfMemory,
    /// A result with NaN or infinity in it.
    NotFinite,
    /// A callback ended the run.
    Stopped,
    /// A rank panicked or stopped answering.
    RankLost,
    /// The operating system or the network failed.
    Io,
    /// A kernel was called wrongly: a fault of this library.
    Internal,
}

impl Error {
    /// The kind of this error.
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
            Self::OutOfMemory { .. } => ErrorCategory::OutOfMemory,
            Self::NotFinite { .. } => ErrorCategory::NotFinite,
            Self::Stopped { .. } => ErrorCategory::Stopped,
            Self::Kernel(xdit_kernels::Error::OutOfMemory { .. }) => ErrorCategory::OutOfMemory,
            Self::Io { source, .. } | Self::Kernel(xdit_kernels::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::OutOfMemory =>
            {
                ErrorCategory::OutOfMemory
            }
            Self::Kernel(xdit_kernels::Error::Io { .. }) => ErrorCategory::Io,
            Self::Kernel(_) => ErrorCategory::Internal,
            Self::Rank { source, .. } => source.category(),
            Self::Comm(xdit_comm::Error::Degrees(_)) => ErrorCategory::InvalidRequest,
            Self::Comm(_) | Self::Lost(_) => ErrorCategory::RankLost,
            Self::Io { .. } | Self::Hub { .. } | Self::NoThread { .. } => ErrorCategory::Io,
        }
    }

    /// Whether a rank is lost since it finished nothing within the deadline: with a longer one it might have gone on.
    pub fn is_stall(&self) -> bool {
        match self {
            Self::Rank { source, .. } => source.is_stall(),
            Self::Comm(error) => error.is_stall(),
            Self::Lost(loss) => loss.is_stall(),
            _ => false,
        }
    }

    /// The other ranks' failure that this error reports, or the error itself where it is this rank's own.
    pub(crate) fn lost_peer(self) -> Result<xdit_comm::Error, Self> {
        use xdit_comm::Error as Comm;
        let comm = match self {
            Self::Comm(comm) => comm,
            Self::Kernel(kernel) => match kernel {
                // Attention carries it through its own crate's error.
                xdit_kernels::Error::Other(inner) => match inner.downcast::<Comm>() {
                    Ok(comm) => *comm,
                    Err(inner) => return Err(Self::Kernel(xdit_kernels::Error::Other(inner))),
                },
                kernel => return Err(Self::Kernel(kernel)),
            },
            own => return Err(own),
        };
        match comm {
            Comm::PeerLost { .. } | Comm::Disagree { .. } | Comm::Deadlock(_) => Ok(comm),
            own => Err(Self::Comm(own)),
        }
    }

    /// An [`Error::InvalidRequest`]; a long value is shortened.
    pub fn invalid(
        argument: &'static str,
        given: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::InvalidRequest {
            argument,
            given: shorten(&given.to_string()),
            allowed: allowed.into(),
        }
    }

    /// The same with a `note` at the end of its reason, where it has one.
    #[cfg(feature = "hub")]
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        if let Self::ModelNotFound { reason, .. } | Self::Hub { reason, .. } = &mut self {
            reason.push_str(note);
        }
        self
    }

    /// An [`Error::BadFile`].
    pub fn bad_file(file: impl Into<String>, reason: impl ToString) -> Self {
        Self::BadFile {
            file: file.into(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;

/// What a dtype has room for, and which has more.
fn room(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16 ends at 65504: dtype bf16 or f32 has room for more",
        DType::BF16 => {
            "bf16 has room for what f32 has, but rounds more: dtype f32 may help, else a weight or an argument is at fault"
        }
        _ => "no dtype has room for more than f32: a weight or an argument is at fault",
    }
}
