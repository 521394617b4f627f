use std::fmt;
use std::time::Duration;

/// What went wrong between ranks. Every message names the operation and the ranks.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank failed, left or stopped answering; every other rank gets this error from its next call at the latest.
    #[error("{op} (rank {rank}): rank {lost} is lost: {reason}")]
    PeerLost {
        /// The operation that could not finish here.
        op: String,
        /// The rank that reports.
        rank: usize,
        /// The rank that is the cause.
        lost: usize,
        /// What it did: its error, its panic, or how long it made no progress.
        reason: Loss,
    },
    /// Two ranks called different things where they must call the same, or expect other shapes than are sent.
    #[error(
        "rank {rank} and rank {other} disagree: rank {rank} calls {mine}, rank {other} calls {theirs}"
    )]
    Disagree {
        /// One rank.
        rank: usize,
        /// The other.
        other: usize,
        /// What the one called.
        mine: String,
        /// What the other called.
        theirs: String,
    },
    /// Ranks wait for each other in a circle.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// An argument that no rank could use: a rank outside the group, a count that does not match its size.
    #[error("{op} (rank {rank} of {world_size}): expected {expected}, got {got}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The rank that called it.
        rank: usize,
        /// Size of the group.
        world_size: usize,
        /// What it needs.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// Degrees that do not make the world, with every factor and the nearest plan that does.
    #[error("{0}")]
    Degrees(String),
    /// A mesh has no such axis.
    #[error("no axis {axis} in the mesh {mesh}")]
    Axis {
        /// The name that was asked for.
        axis: &'static str,
        /// The axes that there are, with their degrees.
        mesh: String,
    },
    /// A tensor operation failed on this rank.
    #[error("{0}")]
    Kernel(String),
    /// A rank's own work failed, or never ended; carried by [`threads::run`](crate::threads::run).
    #[error("rank {rank}: {reason}")]
    Rank {
        /// The rank.
        rank: usize,
        /// Its error, its panic, or that its thread is left behind.
        reason: Loss,
    },
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
    /// It failed, panicked, or left while others waited for it: in these words.
    Failed(String),
    /// It finished no operation for so long, the group's deadline.
    NoProgress(Duration),
    /// Others have waited for it for so long in an exchange of the control plane, whose deadline that was.
    NoAnswer(Duration),
    /// Its thread had not returned when the caller stopped waiting for it, and runs on.
    LeftBehind {
        /// How long it had finished nothing, if it was lost for that.
        idle: Option<Duration>,
    },
}

impl Loss {
    /// Whether the deadline was the reason: with a longer one the rank might have gone on.
    pub fn is_stall(&self) -> bool {
        match self {
            Self::NoProgress(_) | Self::NoAnswer(_) => true,
            Self::LeftBehind { idle } => idle.is_some(),
            Self::Failed(_) => false,
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
            Self::LeftBehind { idle } => {
                let before = idle
                    .as_ref()
                    .map_or_else(String::new, |idle| no_progress(idle) + "; ");
                write!(f, "{before}its thread still runs and is left behind")
            }
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The rank that caused the failure, where one is known.
    pub fn culprit(&self) -> Option<usize> {
        match self {
            Self::PeerLost { lost, .. } => Some(*lost),
            Self::Rank { rank, .. } | Self::NoThread { rank, .. } => Some(*rank),
            _ => None,
        }
    }

    /// Why that rank is lost, where one is.
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
                Err(other) => Self::Kernel(other.to_string()),
            },
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
