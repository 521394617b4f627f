use std::fmt;

/// What a plan cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The image, into patches.
    Patches,
    /// The model, into stages.
    Stages,
    /// The blocks that each stage is given.
    Blocks,
    /// What blocks cost.
    Costs,
    /// The latents of a run, one tensor a patch.
    Latents,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patches => "number of pipeline patches",
            Self::Stages => "number of pipeline stages",
            Self::Blocks => "blocks of each stage",
            Self::Costs => "cost of a block",
            Self::Latents => "number of latents",
        })
    }
}

/// What can go wrong: a plan that cannot be, a stage that breaks its contract, or a rank that is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Patches or stages that this image or model cannot be cut into.
    #[error("{what}: {found}, but must be {allowed}")]
    Plan {
        /// What was to be cut.
        what: What,
        /// What was asked for.
        found: String,
        /// What is possible.
        allowed: String,
    },
    /// The last stage's prediction is not one tensor for each patch.
    #[error("prediction of {turn:?}: {got} tensors, but must be {expected}, one a patch")]
    Predictions {
        /// When.
        turn: crate::Turn,
        /// The patches of the turn.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Communication failed.
    #[error(transparent)]
    Comm(#[from] xdit_comm::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Kernel(#[from] xdit_kernels::Error),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn plan(what: What, found: impl ToString, allowed: impl ToString) -> Self {
        Self::Plan {
            what,
            found: found.to_string(),
            allowed: allowed.to_string(),
        }
    }
}

impl From<Error> for xdit_comm::Error {
    /// For the closure of [`xdit_comm::threads::run`]: an error of ranks stays what it is, another is told in its words.
    fn from(error: Error) -> Self {
        match error {
            Error::Comm(error) => error,
            Error::Kernel(error) => error.into(),
            other => Self::Kernel(other.to_string()),
        }
    }
}
