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
        reason: String,
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
    /// A tensor operation failed on this rank.
    #[error("{0}")]
    Kernel(String),
    /// A rank's own work failed; carried by [`threads::run`](crate::threads::run).
    #[error("rank {rank}: {reason}")]
    Rank {
        /// The rank.
        rank: usize,
        /// Its error or panic.
        reason: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The rank that caused the failure, where one is known.
    pub fn culprit(&self) -> Option<usize> {
        match self {
            Self::PeerLost { lost, .. } => Some(*lost),
            Self::Rank { rank, .. } => Some(*rank),
            _ => None,
        }
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

/// How long a group waits for a rank that makes no progress, unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);
