use crate::Branch;

/// What can go wrong: a plan that cannot be, predictions that do not fit each other, or a rank that is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A scale that no prediction can be multiplied by.
    #[error("{name}: {got}, but must be {expected}")]
    Scale {
        /// Which, as diffusers calls it.
        name: &'static str,
        /// What is possible.
        expected: &'static str,
        /// What it is.
        got: f64,
    },
    /// A number of ranks that branches are not split over.
    #[error("guidance over {got} ranks, but must be over 1 or 2")]
    Degree {
        /// The ranks of the cfg axis.
        got: usize,
    },
    /// Two ranks and one branch: the second rank would do the first one's work again.
    #[error(
        "guidance over 2 ranks with guidance_scale {guidance_scale}, which needs one branch: give a scale above 1 or a cfg degree of 1"
    )]
    OneBranch {
        /// The scale of the plan.
        guidance_scale: f32,
    },
    /// Not one prediction for each branch of this rank.
    #[error("combine: {got} predictions, but must be {expected}, of {branches:?}")]
    Predictions {
        /// The branches of this rank.
        branches: &'static [Branch],
        /// How many they are.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Predictions of different shapes or dtypes, or without a batch dim.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What it needs.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A prediction with no standard deviation to divide by: fewer than two elements, or all the same.
    #[error(
        "rescale: the guided prediction of batch entry {entry} is constant over its {count} elements, but must vary"
    )]
    Constant {
        /// Which entry of the batch.
        entry: usize,
        /// Its elements, over all ranks.
        count: u64,
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

/// So that a rank's work, which returns the error of its group, can use `?` on guidance.
impl From<Error> for xdit_comm::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Comm(error) => error,
            other => Self::Kernel(other.to_string()),
        }
    }
}
