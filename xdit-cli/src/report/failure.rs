//! The failures of a run and their exit codes.

use std::io;
use std::path::{Path, PathBuf};

use xdit_kernels::DType;
use xdit_models::{ErrorCategory, quote};

use crate::report::voice;

/// The failure of a command: one line that names the flag or file, and an exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A flag or a value that is not supported.
    #[error("{0}")]
    Usage(String),

    /// The model could not be found, read or run.
    #[error("{}{}", told(.0), flags(.0))]
    Model(xdit_models::Error),

    /// A rank made no progress for too long.
    #[error("{0}{STALL}")]
    Stalled(xdit_models::Error),

    /// A GPU failed that `--device auto` chose.
    #[error("{source} (--device auto chose {device}{WITHOUT_GPU})")]
    AutomaticGpu {
        /// The GPU.
        device: String,
        /// How it failed.
        source: Box<Self>,
    },

    /// Another rank of the job cannot go on, or has failed.
    #[error("rank {rank} ({}): {}", quote::name(host), quote::reason(message))]
    OfRank {
        /// The rank.
        rank: usize,
        /// Its host.
        host: String,
        /// Why.
        message: String,
        /// The exit code of all ranks.
        code: u8,
    },

    /// Another rank of the job is lost.
    #[error("rank {rank} ({}) is lost: {reason}{}", quote::name(host), if reason.is_stall() { STALL } else { "" })]
    LostRank {
        /// The rank.
        rank: usize,
        /// Its host.
        host: String,
        /// How.
        reason: xdit_comm::Loss,
    },

    /// The processes of a job did not come together.
    #[error("{}", quote::reason(message))]
    Rendezvous {
        /// Who is missing or was refused.
        message: String,
        /// Whether rank 0 tells the same.
        is_told: bool,
    },

    /// A file could not be written.
    #[error("{}: cannot be written: {}", shown(path), quote::reason(reason))]
    Output {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// The name of a file, with its number, is too long for its file system.
    #[error("{}: cannot be written: the name is too long ({} bytes, {} with its folders)", shown(path), name_bytes(path), path.as_os_str().len())]
    LongName {
        /// The file.
        path: PathBuf,
    },

    /// A file could not be read.
    #[error("{}: cannot be read: {}", shown(path), quote::reason(reason))]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// A PNG without a valid record of a run.
    #[error("{}: {}", shown(path), quote::reason(reason))]
    NoRecord {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },

    /// The system refuses something that `launch` needs to start processes.
    #[error("{what}: the system refuses it: {}", quote::reason(reason))]
    Start {
        /// A process, or what it needs.
        what: String,
        /// Why.
        reason: String,
    },

    /// The reader of standard output has closed it.
    #[error("standard output: {}", system_reason(.0))]
    Stdout(io::Error),
}

/// The exit code of wrong flags and settings.
pub(crate) const USAGE: u8 = 2;

/// The exit code of files of a model that cannot be used.
pub(crate) const BAD_MODEL: u8 = 4;

/// The exit code where a rank is lost.
pub(crate) const RANK_LOST: u8 = 6;

/// The flag that decides when a rank is lost.
const STALL: &str = " (--rank-timeout: how long a rank may go without finishing an operation)";

/// The way out of the failures of a GPU that the program chose.
pub(crate) const WITHOUT_GPU: &str = "; --device cpu computes on the processor";

/// An error of the library in the words of the command line.
fn told(error: &xdit_models::Error) -> String {
    let text = error.to_string();
    match error.category() {
        ErrorCategory::OutOfMemory => with_flags(&text),
        _ => text,
    }
}

/// A message of the library whose arguments, such as `guidance_scale`, become the flags of the same name.
pub(crate) fn with_flags(text: &str) -> String {
    let is_argument = |part: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        part.starts_with(|c: char| c.is_ascii_lowercase()) && part.chars().all(plain)
    };
    let mut parts = text.split('`');
    let mut told = parts.next().unwrap_or_default().to_owned();
    while let Some(quoted) = parts.next() {
        match (is_argument(quoted), parts.next()) {
            (true, Some(rest)) => told += &format!("--{}{rest}", quoted.replace('_', "-")),
            (_, Some(rest)) => told += &format!("`{quoted}`{rest}"),
            (_, None) => told += &format!("`{quoted}"),
        }
    }
    told
}

/// Names the flags that help against an error of the library.
fn flags(error: &xdit_models::Error) -> &'static str {
    match error {
        xdit_models::Error::Rank { source, .. } => flags(source),
        xdit_models::Error::NotFinite { dtype, .. } => match dtype {
            DType::F16 => {
                " (--dtype bf16, --dtype f32); --allow-non-finite writes the result all the same"
            }
            DType::BF16 => " (--dtype f32); --allow-non-finite writes the result all the same",
            _ => "; --allow-non-finite writes the result all the same",
        },
        _ => "",
    }
}

impl From<xdit_models::Error> for Failure {
    /// Converts arguments of the call to the flags of the same name.
    fn from(error: xdit_models::Error) -> Self {
        match error {
            xdit_models::Error::InvalidRequest {
                argument,
                given,
                allowed,
            } => {
                let flag = argument.replace('_', "-");
                // The other name of the same flag takes no number.
                let also = match argument {
                    "cfg_degree" => " (--use-cfg-parallel)",
                    _ => "",
                };
                let (given, allowed) = (quote::shorten(&given), with_flags(&allowed));
                Self::Usage(match given.as_str() {
                    "" => format!("--{flag} must be {allowed}"),
                    _ => format!("--{flag} {given}{also}: must be {allowed}"),
                })
            }
            // Only of a rank that is a process, the host is known.
            xdit_models::Error::Comm(xdit_comm::Error::PeerLost {
                lost: rank,
                host: Some(host),
                reason,
                ..
            }) => match reason {
                xdit_comm::Loss::Failed(message) => Self::OfRank {
                    rank,
                    host,
                    message,
                    code: RANK_LOST,
                },
                reason => Self::LostRank { rank, host, reason },
            },
            other if other.is_stall() => Self::Stalled(other),
            other => Self::Model(other),
        }
    }
}

impl From<xdit_comm::Error> for Failure {
    /// As an error of the library that has this cause.
    fn from(error: xdit_comm::Error) -> Self {
        xdit_models::Error::Comm(error).into()
    }
}

impl Failure {
    /// Creates a [`Failure::Usage`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The failure of a process that could not join the others. `port` says why it is this port.
    pub(crate) fn of_join(error: xdit_comm::Error, port: &str) -> Self {
        match error {
            xdit_comm::Error::CannotListen(message) => Self::Rendezvous {
                message: format!(
                    "{message} (this one is {port}; --rendezvous-port or MASTER_PORT chooses another)"
                ),
                is_told: false,
            },
            xdit_comm::Error::Rendezvous(message) => Self::Rendezvous {
                message,
                is_told: false,
            },
            xdit_comm::Error::NotBegun(message) => Self::Rendezvous {
                message,
                is_told: true,
            },
            other => other.into(),
        }
    }

    /// Returns whether a silent rank must tell this itself, because the one that speaks cannot.
    pub(crate) fn is_without_rank_0(&self) -> bool {
        match self {
            Self::LostRank { rank, .. } => *rank == voice::speaker(),
            Self::Rendezvous { is_told, .. } => !is_told,
            _ => false,
        }
    }

    /// Creates a [`Failure::Output`].
    pub(crate) fn output(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::Output {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    /// Creates a [`Failure::Output`] or [`Failure::LongName`] from the system's error for a new file or folder.
    pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidFilename => Self::LongName {
                path: path.to_owned(),
            },
            _ => Self::output(path, system_reason(error)),
        }
    }

    /// Creates a [`Failure::Input`].
    pub(crate) fn input(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::Input {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    /// Creates a [`Failure::Start`].
    pub(crate) fn start(what: impl Into<String>, error: &io::Error) -> Self {
        Self::Start {
            what: what.into(),
            reason: system_reason(error),
        }
    }

    /// Creates a [`Failure::NoRecord`].
    pub(crate) fn no_record(path: &Path, reason: impl ToString) -> Self {
        Self::NoRecord {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Returns whether a GPU failed, or has too little memory.
    pub(crate) fn is_of_device(&self) -> bool {
        fn leaf(error: &xdit_models::Error) -> bool {
            use xdit_kernels::Error as Kernel;
            match error {
                xdit_models::Error::Rank { source, .. } => leaf(source),
                xdit_models::Error::DeviceOutOfMemory { .. } => true,
                xdit_models::Error::Kernel(error) => matches!(
                    error,
                    Kernel::Device { .. } | Kernel::DeviceOutOfMemory { .. }
                ),
                _ => false,
            }
        }
        matches!(self, Self::Model(error) if leaf(error))
    }

    /// Returns the exit code of the process, as listed in `--help`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::LongName { .. } | Self::NoRecord { .. } => 2,
            Self::Output { .. } | Self::Input { .. } | Self::Start { .. } | Self::Stdout(_) => 1,
            Self::AutomaticGpu { source, .. } => source.exit_code(),
            Self::OfRank { code, .. } => *code,
            Self::LostRank { .. } | Self::Rendezvous { .. } => RANK_LOST,
            Self::Model(error) | Self::Stalled(error) => match error.category() {
                ErrorCategory::InvalidRequest => 2,
                ErrorCategory::ModelNotFound | ErrorCategory::Gated => 3,
                ErrorCategory::BadModel => 4,
                ErrorCategory::OutOfMemory => 5,
                ErrorCategory::RankLost => RANK_LOST,
                _ => 1,
            },
        }
    }
}

/// Returns the name of a file for messages.
pub(crate) fn shown(path: &Path) -> String {
    quote::name(&path.display().to_string())
}

/// Returns the length of the last part of a path.
fn name_bytes(path: &Path) -> usize {
    path.file_name().map_or(0, |name| name.len())
}

/// Returns the system's reason without its number.
pub(crate) fn system_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").or_else(|| text.find(" at path"));
    text[..end.unwrap_or(text.len())].to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_flags() {
        for (text, told) in [
            (
                "`guidance_scale` has no effect",
                "--guidance-scale has no effect",
            ),
            (
                "try `vae_tiling` or `dtype` bf16",
                "try --vae-tiling or --dtype bf16",
            ),
            (
                "such as `a red circle`, or `no",
                "such as `a red circle`, or `no",
            ),
            ("", ""),
        ] {
            assert_eq!(with_flags(text), told);
        }
    }

    #[test]
    fn too_little_memory_says_what_helps() {
        let failure = Failure::from(xdit_models::Error::OutOfMemory {
            what: "20000 × 20000".into(),
            bytes: 126 << 30,
            available: Some(21 << 30),
            cure: "; try `vae_tiling` or a smaller size".into(),
        });
        assert_eq!(failure.exit_code(), 5);
        assert_eq!(
            failure.to_string(),
            "out of memory: 20000 × 20000 needs 126 GiB, 21 GiB are available; try --vae-tiling or a smaller size"
        );
    }
}
