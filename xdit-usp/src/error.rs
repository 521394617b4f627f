use std::fmt::Debug;

/// A plan that does not fit its ranks or tensors, a lost rank, or a failed tensor operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A group, a coordinate or a tensor does not fit the plan.
    #[error("{op}: expected {expected}, got {got}")]
    Plan {
        /// The operation.
        op: &'static str,
        /// What the plan needs.
        expected: String,
        /// The given value.
        got: String,
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
    pub(crate) fn plan(op: &'static str, expected: impl Into<String>, got: impl Debug) -> Self {
        Self::Plan {
            op,
            expected: expected.into(),
            got: format!("{got:?}"),
        }
    }
}

impl From<Error> for xdit_kernels::Error {
    /// Converts the error for the trait [`Attention`](xdit_kernels::attention::Attention), whose error type is that of `xdit-kernels`.
    fn from(error: Error) -> Self {
        match error {
            Error::Comm(error) => error.into(),
            Error::Kernel(error) => error,
            plan @ Error::Plan { .. } => Self::Other(Box::new(plan)),
        }
    }
}

impl From<Error> for xdit_comm::Error {
    /// Converts the error for the closure of [`xdit_comm::threads::run`].
    fn from(error: Error) -> Self {
        match error {
            Error::Comm(error) => error,
            other => xdit_kernels::Error::from(other).into(),
        }
    }
}
