//! The errors of this crate and their [`ErrorCategory`].

mod category;
mod from;
mod lost;

use std::path::PathBuf;

use xdit_kernels::DType;

pub use category::ErrorCategory;

use crate::quote;
pub(crate) use crate::quote::shorten;

/// ` = 8:`, or nothing without a value.
fn equals(given: &str) -> String {
    match given {
        "" => String::new(),
        given => format!(" = {}:", quote::shorten(given)),
    }
}

/// `, 21 GiB are available`; where that reads like the needed bytes, how many are missing.
fn there_are(available: Option<u64>, needed: u64) -> String {
    let told = |available| match (quote::bytes(available), needed.saturating_sub(available)) {
        (there, missing) if missing > 0 && there == quote::bytes(needed) => {
            format!(", {} more than are available", quote::bytes(missing))
        }
        (there, _) => format!(", {there} are available"),
    };
    available.map(told).unwrap_or_default()
}

/// `; the rest: transformer 12 GiB, activations 3.0 GiB`.
fn held_by(holders: &[(String, u64)]) -> String {
    let parts = holders.iter();
    let parts: Vec<String> = parts
        .map(|(name, bytes)| format!("{} {}", quote::name(name), quote::bytes(*bytes)))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("; the rest: {}", parts.join(", ")),
    }
}

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of loading or running a model.
///
/// Each message names the file, tensor, field or argument, what was expected and what was found. It is one line: the display
/// escapes and cuts the text of the fields, see [`quote`]. [`Error::category`] groups the variants, for exit codes and for
/// callers that only need the kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model is neither a folder on disk nor a repository of the hub.
    #[error("model not found: {}: {}", quote::name(model), quote::reason(reason))]
    ModelNotFound {
        /// The path or hub id (with its revision).
        model: String,
        /// The places that were searched, and what was there.
        reason: String,
    },

    /// The hub's cache holds only a part of the model, and the network may not be used.
    #[error(
        "{} is incomplete in the cache: it lacks {}{}",
        quote::name(model),
        quote::name(missing),
        quote::reason(cure)
    )]
    IncompleteModel {
        /// The hub id with its revision.
        model: String,
        /// A file that is missing.
        missing: String,
        /// `; ` and how to complete it.
        cure: String,
    },

    /// The hub requires an accepted licence or a token.
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

    /// The hub could not be reached or sent an unexpected answer.
    #[error("hub: {}: {}", quote::name(what), quote::reason(reason))]
    Hub {
        /// The request.
        what: String,
        /// The failure.
        reason: String,
    },

    /// A required file of a pipeline is missing.
    #[error(
        "{}: no such file in the pipeline{}",
        quote::name(file),
        quote::reason(hint)
    )]
    MissingFile {
        /// The file, with the pipeline's path.
        file: String,
        /// Empty, or `; ` and the other names that were tried.
        hint: String,
    },

    /// A file does not have the format that its name says.
    #[error("{}: {}", quote::name(file), quote::reason(reason))]
    BadFile {
        /// The file, with the pipeline's path.
        file: String,
        /// The problem.
        reason: String,
    },

    /// A field of a JSON configuration has an invalid value.
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
        /// The allowed values.
        expected: String,
        /// The value in the file.
        found: String,
    },

    /// A class, or an option of a class, is not supported in this version.
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
        /// All supported values.
        supported: String,
    },

    /// A tensor is missing, or has the wrong shape, dtype or content.
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
        /// The tensor that the model needs.
        expected: String,
        /// The tensor in the file.
        found: String,
    },

    /// An argument of a call is invalid for this model.
    #[error("`{argument}`{} must be {}", equals(given), quote::reason(allowed))]
    InvalidRequest {
        /// The argument, with its name in diffusers.
        argument: &'static str,
        /// The given value (shortened if it is long). Empty if the argument must be left out.
        given: String,
        /// The allowed values.
        allowed: String,
    },

    /// A result contains NaN or infinity, and the request does not allow it.
    #[error("the result is not finite (NaN or infinity): that begins in {origin}; {}", room(*.dtype))]
    NotFinite {
        /// The component where it begins, the step, and the image.
        origin: String,
        /// The dtype of weights and activations.
        dtype: DType,
    },

    /// There is not enough memory.
    #[error(
        "out of memory: {} needs {}{}{}",
        quote::name(what),
        quote::bytes(*bytes),
        there_are(*available, *bytes),
        quote::reason(cure)
    )]
    OutOfMemory {
        /// The purpose of the memory.
        what: String,
        /// The requested bytes.
        bytes: u64,
        /// The available bytes, if they are known.
        available: Option<u64>,
        /// Empty, or `; try ` and what needs less memory.
        cure: String,
    },

    /// A GPU has too little memory.
    #[error(
        "out of memory on {}: {} needs {}{}{}{}",
        quote::name(device),
        quote::name(what),
        quote::bytes(*bytes),
        there_are(*available, *bytes),
        held_by(holders),
        quote::reason(cure)
    )]
    DeviceOutOfMemory {
        /// The GPU.
        device: Box<str>,
        /// The purpose of the memory.
        what: Box<str>,
        /// The requested bytes.
        bytes: u64,
        /// The available bytes, if they are known.
        available: Option<u64>,
        /// What holds how many bytes of the rest, if an allocation failed. Empty if a plan does not fit.
        holders: Box<[(String, u64)]>,
        /// Empty, or `; try ` and what needs less memory.
        cure: Box<str>,
    },

    /// The system refused a thread.
    #[error("no thread for {what}: {reason} (limits: ulimit -u, pids.max of a container)")]
    NoThread {
        /// The purpose of the thread.
        what: String,
        /// The system's reason.
        reason: String,
    },

    /// A callback ended the run.
    #[error("stopped by the callback after step {step}")]
    Stopped {
        /// The number of finished steps.
        step: usize,
    },

    /// A [`CancelToken`](crate::CancelToken) ended the call.
    #[error("the call was cancelled")]
    Cancelled,

    /// An error of the caller's own code: of [`Observer::tensor`](crate::Observer::tensor), or of a
    /// [`WeightSource`](crate::weights::WeightSource).
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A rank failed, and with it the run.
    #[error("{}: {source}", quote::name(rank))]
    Rank {
        /// The rank and its coordinates on the mesh.
        rank: String,
        /// The error of the rank.
        source: Box<Self>,
    },

    /// A rank was lost without an error of its own: it panicked, left, or stopped answering. [`Error::Rank`] names the rank.
    #[error("{loss}")]
    Lost {
        /// Why.
        loss: xdit_comm::Loss,
        /// The numbers of all ranks that are lost. Without them, others could draw the image.
        ranks: Vec<usize>,
    },

    /// Ranks lost each other, or the degrees do not form a mesh.
    #[error(transparent)]
    Comm(xdit_comm::Error),

    /// A kernel failed: there was no memory, or shapes do not fit, which is a bug of this library.
    #[error(transparent)]
    Kernel(xdit_kernels::Error),

    /// The operating system refused to read or write.
    #[error("{}: {source}", quote::name(&path.display().to_string()))]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// Creates an [`Error::Other`] from any error, or from a text.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::Tensor;
    /// use xdit_models::{Error, Observer, Result};
    /// struct Writer(Vec<u8>);
    /// impl Observer for Writer {
    ///     fn wants_tensors(&self) -> bool {
    ///         true
    ///     }
    ///     fn tensor(&mut self, name: &str, _: &dyn Fn() -> Result<Tensor>) -> Result<()> {
    ///         std::io::Write::write_all(&mut self.0, name.as_bytes()).map_err(Error::other)
    ///     }
    /// }
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// Creates an [`Error::InvalidRequest`] for an argument that must be left out, whatever its value.
    pub(crate) fn left_out(argument: &'static str, reason: &str) -> Self {
        Self::invalid(argument, "", format!("left out: {reason}"))
    }

    /// Creates an [`Error::InvalidRequest`]. A long value is shortened.
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

    /// Returns the same error with a `note` at the end of its reason, if it has one.
    #[cfg(feature = "hub")]
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        if let Self::ModelNotFound { reason, .. } | Self::Hub { reason, .. } = &mut self {
            reason.push_str(note);
        }
        self
    }

    /// Creates an [`Error::BadFile`].
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
