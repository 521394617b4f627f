use std::fmt;
use std::time::Duration;

/// An error of communication. Every message names the operation and the ranks.
///
/// # Examples
/// The work of a rank may fail with an error of its own, [`Error::Other`]. The call on all ranks then returns [`Error::Rank`], which
/// names the rank and has that error as its source:
/// ```
/// use std::error::Error as _;
/// use xdit_comm::{Error, threads};
///
/// #[derive(Debug)]
/// struct OutOfLuck(u32);
///
/// impl std::fmt::Display for OutOfLuck {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "out of luck at {}", self.0)
///     }
/// }
///
/// impl std::error::Error for OutOfLuck {}
///
/// let failed = threads::run(3, |group| match group.rank() {
///     1 => Err(Error::other(OutOfLuck(13))),
///     _ => group.barrier(),
/// });
/// let error = failed.unwrap_err();
/// assert_eq!(error.to_string(), "rank 1: out of luck at 13");
/// let source = error.source().and_then(|source| source.downcast_ref());
/// assert!(matches!(source, Some(OutOfLuck(13))));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank failed, left or stopped answering. Every other rank gets this error from its next call at the latest.
    #[error("{op} (rank {rank}): rank {lost}{} is lost: {reason}", of_host(host.as_deref()))]
    PeerLost {
        /// The operation that could not finish here.
        op: String,
        /// The rank that reports.
        rank: usize,
        /// The rank that is the cause.
        lost: usize,
        /// The host of that rank, if ranks are processes.
        host: Option<String>,
        /// Its error or its panic, or how long it made no progress.
        reason: Loss,
    },
    /// Two ranks called different operations where they must call the same one, or one expects other shapes than the other sends.
    #[error(
        "rank {rank} and rank {other} disagree: rank {rank} calls {mine}, rank {other} calls {theirs}"
    )]
    Disagree {
        /// One rank.
        rank: usize,
        /// The other.
        other: usize,
        /// The call of `rank`.
        mine: String,
        /// The call of `other`.
        theirs: String,
    },
    /// Ranks wait for each other in a circle.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// An invalid argument: a rank outside the group, or a count that does not match its size.
    #[error("{op} (rank {rank} of {world_size}): expected {expected}, got {got}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The rank that called it.
        rank: usize,
        /// Size of the group.
        world_size: usize,
        /// The allowed values.
        expected: String,
        /// The given value.
        got: String,
    },
    /// The product of the degrees is not the size of the world. The message names every factor and the nearest valid plan.
    #[error("{0}")]
    Degrees(String),
    /// The mesh does not have this axis.
    #[error("no axis {axis} in the mesh {mesh}")]
    Axis {
        /// The requested name.
        axis: &'static str,
        /// The axes of the mesh, with their degrees.
        mesh: String,
    },
    /// A tensor operation failed on this rank.
    #[error("{0}")]
    Kernel(String),
    /// The work of a rank failed or never ended. [`threads::run`](crate::threads::run) returns it.
    #[error("rank {rank}: {reason}")]
    Rank {
        /// The rank.
        rank: usize,
        /// Its error or its panic, or that its thread is left behind.
        reason: Loss,
        /// The error that the work of the rank returned: the user's own one for [`Error::Other`]. `None` if it returned none.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// An error of the work of a rank that is not of this crate.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Ranks that are processes did not come together. The message says who refused whom, or who is missing.
    #[error("{0}")]
    Rendezvous(String),
    /// Rank 0 cannot listen for the others at the port of the rendezvous. The message says why.
    #[error("{0}")]
    CannotListen(String),
    /// Ranks that are processes did not come together, and rank 0 has told the reason to all ranks that it reached. Its own error has
    /// the same text.
    #[error("{0}")]
    NotBegun(String),
    /// The system started no thread for a rank.
    #[error("no thread for rank {rank}: {reason}")]
    NoThread {
        /// The rank.
        rank: usize,
        /// The system's reason.
        reason: String,
    },
}

/// Why a rank is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The rank failed, panicked, or left while others waited for it. The text is its reason.
    Failed(String),
    /// The rank finished no operation for this time, the deadline of the group.
    NoProgress(Duration),
    /// Others waited for the rank for this time in an exchange of the control plane, the deadline of the exchange.
    NoAnswer(Duration),
    /// The process of the rank has ended, or its connection is broken.
    Ended,
    /// The process of the rank has shown no sign of life for this time: it is stopped, or its host is cut off.
    Silent(Duration),
    /// The thread of the rank had not returned when the caller stopped waiting for it. The thread still runs.
    LeftBehind {
        /// How long the rank had finished no operation, if it was lost for that reason.
        idle: Option<Duration>,
    },
}

impl Loss {
    /// Returns whether a deadline was the reason. With a longer one the rank might have continued.
    pub fn is_stall(&self) -> bool {
        match self {
            Self::NoProgress(_) | Self::NoAnswer(_) | Self::Silent(_) => true,
            Self::LeftBehind { idle } => idle.is_some(),
            Self::Failed(_) | Self::Ended => false,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no_progress = |idle: &Duration| format!("no progress for {:.1} s", idle.as_secs_f64());
        match self {
            Self::Failed(reason) => f.write_str(reason),
            Self::NoProgress(idle) => f.write_str(&no_progress(idle)),
            Self::NoAnswer(limit) => {
                let seconds = limit.as_secs_f64();
                write!(f, "no part in a control exchange within {seconds:.1} s")
            }
            Self::Ended => f.write_str("its process has ended, or its connection is broken"),
            Self::Silent(limit) => {
                let seconds = limit.as_secs_f64();
                write!(
                    f,
                    "no sign of life for {seconds:.1} s: its process is stopped, or its host is cut off"
                )
            }
            Self::LeftBehind { idle } => {
                let before = idle
                    .as_ref()
                    .map_or_else(String::new, |idle| no_progress(idle) + "; ");
                write!(f, "{before}its thread still runs and is left behind")
            }
        }
    }
}

/// The host of a rank, as it follows the number of the rank.
fn of_host(host: Option<&str>) -> String {
    host.map_or_else(String::new, |host| format!(" ({host})"))
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an [`Error::Other`] from any error, or from a text.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// Returns the rank that caused the failure, if it is known.
    pub fn culprit(&self) -> Option<usize> {
        match self {
            Self::PeerLost { lost, .. } => Some(*lost),
            Self::Rank { rank, .. } | Self::NoThread { rank, .. } => Some(*rank),
            _ => None,
        }
    }

    /// Returns why a rank is lost, if one is.
    pub fn loss(&self) -> Option<&Loss> {
        match self {
            Self::PeerLost { reason, .. } | Self::Rank { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Whether a rank is lost because it finished nothing within the deadline.
    pub fn is_stall(&self) -> bool {
        self.loss().is_some_and(Loss::is_stall)
    }
}

impl From<xdit_kernels::Error> for Error {
    fn from(e: xdit_kernels::Error) -> Self {
        // A comm error that went through the seam of the attention trait comes out as itself.
        match e {
            xdit_kernels::Error::Other(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Other(other),
            },
            // Callers tell it from other failures.
            refused @ (xdit_kernels::Error::OutOfMemory { .. }
            | xdit_kernels::Error::DeviceOutOfMemory { .. }) => Self::Other(Box::new(refused)),
            other => Self::Kernel(other.to_string()),
        }
    }
}

impl From<Error> for xdit_kernels::Error {
    fn from(e: Error) -> Self {
        Self::Other(Box::new(e))
    }
}

/// How long a rank may go without finishing an operation, unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);
