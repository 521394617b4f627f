use crate::Branch;

/// An invalid plan, predictions that do not fit each other, a lost rank, or a failed tensor operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A scale is not finite or out of range.
    #[error("{name}: {got}, but must be {expected}")]
    Scale {
        /// The name of the argument in diffusers.
        name: &'static str,
        /// The allowed values.
        expected: &'static str,
        /// The given value.
        got: f64,
    },
    /// Guidance on more than two ranks, or on none.
    #[error("guidance over {got} ranks, but must be over 1 or 2")]
    Degree {
        /// The number of ranks on the cfg axis.
        got: usize,
    },
    /// Two ranks and one branch: the second rank would repeat the work of the first.
    #[error(
        "guidance over 2 ranks with guidance_scale {guidance_scale}, which needs one branch: give a scale above 1 or a cfg degree of 1"
    )]
    OneBranch {
        /// The scale of the plan.
        guidance_scale: f32,
    },
    /// The number of predictions differs from the number of branches of this rank.
    #[error(
        "combine: the number of predictions is {got}, but must be {expected} ({})",
        names(branches)
    )]
    Predictions {
        /// The branches of this rank.
        branches: &'static [Branch],
        /// Their number.
        expected: usize,
        /// The number of given predictions.
        got: usize,
    },
    /// Predictions of different shapes or dtypes, or without a batch dim.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The required shape or dtype.
        expected: String,
        /// The given one.
        got: String,
    },
    /// A prediction whose standard deviation is zero: it has fewer than two elements, or all are equal.
    #[error(
        "rescale: the guided prediction of batch entry {entry} is constant over its {count} elements, but must vary"
    )]
    Constant {
        /// The index of the batch entry.
        entry: usize,
        /// The number of its elements, over all ranks.
        count: u64,
    },
    /// Communication failed.
    #[error(transparent)]
    Comm(#[from] xdit_comm::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Kernel(#[from] xdit_kernels::Error),
}

/// `conditional, unconditional`.
fn names(branches: &[Branch]) -> String {
    let names: Vec<String> = branches.iter().map(Branch::to_string).collect();
    names.join(", ")
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Lets the closure of a rank, which returns [`xdit_comm::Error`], use `?` on results of this crate.
impl From<Error> for xdit_comm::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Comm(error) => error,
            Error::Kernel(error) => error.into(),
            other => Self::other(other),
        }
    }
}
